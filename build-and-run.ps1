<#
.SYNOPSIS
    Builds Millrace and runs it on Docker Desktop's Kubernetes, or on a cluster of yours.
.DESCRIPTION
    A second run changes only what is different. The steps, in order:
      check    what this machine and the cluster lack, and how to mend it
      images   builds them (and pushes or saves them for nodes that do not see this machine's)
      secrets  writes those that are missing, and checks the overlay
      keda     installs KEDA unless it is there
      apply    applies the overlay
      wait     until everything is ready
      smoke    asks a question
      urls     where everything is
    Scripts are forbidden here? powershell -ExecutionPolicy Bypass -File build-and-run.ps1
    On Linux and macOS ./build-and-run.sh does the same.
.PARAMETER Overlay
    A folder of k8s/overlays; docker-desktop unless you say otherwise.
.PARAMETER Context
    kubectl's name of the cluster; docker-desktop for the overlay of that name.
.PARAMETER Only
    These steps alone, for example images,apply; what they need is checked first.
.PARAMETER Registry
    Pushes the images there, and the nodes pull them from it.
.PARAMETER Upgrade
    Builds, applies and restarts; a KEDA that is too old is renewed.
.PARAMETER Down
    Removes Millrace from the cluster, after a question.
.PARAMETER KeepData
    With -Down: the volumes stay.
.PARAMETER Status
    Shows what runs.
.PARAMETER Logs
    Shows what a component says: master, worker, celery-worker, celery-beat, rabbitmq, postgres,
    open-webui, n8n, prometheus, grafana.
.PARAMETER DryRun
    Shows the exact commands and starts nothing.
.PARAMETER Yes
    Answers questions with yes.
.PARAMETER OneMachine
    Without Docker: makes .venv, installs the locked packages and runs `millrace up`: database, queue,
    workers and API in one process. A second run starts at once.
.PARAMETER Command
    With -OneMachine: another millrace command, for example `demo` or `doctor`.
.PARAMETER Python
    With -OneMachine: the Python to use, 3.11 or newer; found by itself if left out.
.EXAMPLE
    .\build-and-run.ps1
.EXAMPLE
    .\build-and-run.ps1 -Overlay k3s-gpu -Context NAME
.EXAMPLE
    .\build-and-run.ps1 -DryRun
.EXAMPLE
    .\build-and-run.ps1 -OneMachine demo
#>
[CmdletBinding(PositionalBinding = $false)]
param(
    [string] $Overlay = 'docker-desktop',
    [string] $Context = '',
    [string[]] $Only = @(),
    [string] $Registry = '',
    [switch] $Upgrade,
    [switch] $Down,
    [switch] $KeepData,
    [switch] $Status,
    [string] $Logs = '',
    [switch] $DryRun,
    [switch] $Yes,
    [switch] $OneMachine,
    [string] $Python = '',
    [Parameter(Position = 0)] [string] $Command = '',
    [Parameter(ValueFromRemainingArguments)] [string[]] $Rest = @()
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'
Push-Location -LiteralPath $PSScriptRoot
$repo = $PSScriptRoot
$cluster = Join-Path $repo 'scripts/cluster'

# What one run knows. The functions change what is in it and no other variable of this script.
$run = @{
    Steps = @('check', 'images', 'secrets', 'keda', 'apply', 'wait', 'smoke', 'urls')
    Action = 'run'; Step = ''; Label = ''; Flags = @(); Facts = @{ '-' = '-' }
    DryRun = [bool] $DryRun; Yes = [bool] $Yes; Untouched = $true
    Targets = @(); Workloads = @('WORKLOAD'); Memory = 0.0; Disk = 0; Doors = 'forward'
    Code = 0; Out = @(); Err = @(); Forward = $null; ForwardSaid = ''
}

. (Join-Path $cluster 'one-machine.ps1')
. (Join-Path $cluster 'plan.ps1')
. (Join-Path $cluster 'judge.ps1')

# What images/versions.env and the table of overlays say.
function Read-Tables {
    foreach ($line in Get-Content -LiteralPath (Join-Path $repo 'images/versions.env')) {
        $name, $value = $line -split '=', 2
        switch -CaseSensitive ($name) {
            'MILLRACE_TAG' { $run.Facts['tag'] = $value.Trim() }
            'KEDA_VERSION' { $run.Facts['keda'] = $value.Trim() }
            'KUBERNETES_MINIMUM' { $run.Facts['minimum'] = $value.Trim() }
        }
    }
    foreach ($line in Get-Content -LiteralPath (Join-Path $cluster 'overlays')) {
        $fields = @($line.Trim() -split '\s+')
        if ($fields[0] -ne $Overlay -and $fields[0] -ne '*') { continue }
        $run.Memory = [double] $fields[1]
        $run.Disk = [int] $fields[2]
        $run.Facts['platform'] = $fields[3]
        $run.Flags += $(if ($fields[3] -eq '-') { 'native' } else { 'foreign' })
        $run.Flags += @($fields[4] -split ',')
        $run.Targets = @($fields[5] -split ',')
        return
    }
}

function Set-Facts {
    $folder = Join-Path $repo 'k8s/overlays'
    $run.Facts['overlay'] = $Overlay
    if (-not (Test-Path -LiteralPath (Join-Path $folder "$Overlay/kustomization.yaml"))) {
        $run.Facts['found'] = @(Get-ChildItem -Directory $folder | ForEach-Object { $_.Name }) -join ' '
        Stop-Run 'no-overlay'
    }
    Read-Tables
    $run.Facts['repo'] = $repo
    # Docker Desktop shows a folder of Windows as root's, whose mode only root may set.
    $run.Facts['user'] = '0:0'
    $run.Facts['port'] = '28800'
    $run.Facts['component'] = $Logs
    $run.Facts['steps'] = $run.Steps -join ' '
    $run.Facts['secrets'] = "k8s/overlays/$Overlay/secrets"
    $run.Facts['kustomization'] = "k8s/overlays/$Overlay"
    $run.Facts['archive'] = ".millrace/millrace-$($run.Facts['tag'])-$Overlay.tar"
    if ($Registry) {
        $run.Facts['registry'] = $Registry.TrimEnd('/')
        $run.Facts['kustomization'] = ".millrace/cluster/$Overlay"
        $run.Flags = @($run.Flags | Where-Object { $_ -ne 'archive' }) + 'registry'
    }
    $run.Flags += $(if ($KeepData) { 'keep' } else { 'drop' })
    if (Test-Flags 'nodes') { $run.Doors = 'nodes' }
    if ($Upgrade) { $run.Flags += 'upgrade' }
    if ($DryRun) { $run.Flags += 'no-keda' }
}

# Which steps, and with that what has to be checked.
function Select-Steps {
    if ($run.Action -eq 'down') { $run.Steps = @('check', 'down') }
    $chosen = @($Only | ForEach-Object { $_ -split ',' } | Where-Object { $_ })
    foreach ($name in $chosen) {
        $run.Facts['found'] = $name
        if ($run.Steps -notcontains $name) { Stop-Run 'unknown-step' }
    }
    if ($chosen) { $run.Steps = @($run.Steps | Where-Object { $chosen -contains $_ }) }
    if ($run.Action -eq 'run' -and $run.Steps -contains 'check') { $run.Flags += 'machine' }
    foreach ($name in $run.Steps) {
        if ('images', 'secrets' -contains $name) { $run.Flags += 'docker' }
        if ('keda', 'apply', 'wait', 'smoke', 'down' -contains $name) { $run.Flags += 'cluster' }
    }
    if ((Test-Flags 'docker') -or (Test-Flags 'cluster')) {
        $run.Steps = @('check') + @($run.Steps | Where-Object { $_ -ne 'check' })
    }
}

# The cluster that is meant; kubectl's current one is never taken unseen.
function Set-Context {
    if ($Context) { $run.Facts['context'] = $Context; return }
    if ($Overlay -eq 'docker-desktop') {
        $run.Facts['context'] = 'docker-desktop'
        if (Test-Flags 'cluster') { $run.Flags += 'chosen' }
        return
    }
    $run.Facts['context'] = 'CONTEXT'
    if ($DryRun) { return }
    if ((Test-Flags 'cluster') -or $run.Action -ne 'run') { Stop-Run 'which-context' }
}

function Start-Run {
    if ($Down) { $run.Action = 'down' }
    if ($Status) { $run.Action = 'status' }
    if ($Logs) { $run.Action = 'logs' }
    # Whatever is not a parameter ends up here, a mistyped -DryRun as well.
    $run.Facts['found'] = (@($Command) + $Rest) -join ' '
    if ($Command -or $Rest) { Stop-Run 'no-option' }
    if ($env:OS -ne 'Windows_NT' -and -not $DryRun) { Stop-Run 'use-the-twin' }
    Set-Facts
    if ('run', 'down' -contains $run.Action) { Select-Steps }
    else { $run.Steps = @($run.Action); $run.Untouched = $false }
    Set-Context
    Write-Host "Millrace $($run.Facts['tag']), overlay $Overlay"
    foreach ($step in $run.Steps) { Invoke-Step $step }
}

if ($OneMachine) { Start-OneMachine $Command $Rest }

# Answers of a model are UTF-8; a host without a console has no encoding to set.
try { [Console]::OutputEncoding = [System.Text.Encoding]::UTF8 } catch { Write-Verbose "$_" }

$ended = 1
try {
    Start-Run
    $ended = 0
}
catch [System.OperationCanceledException] { Write-Verbose 'The reason was shown.' }
finally {
    Stop-Forward
    Pop-Location
}
exit $ended
