# Reads plan, words and overlays, and starts what the plan says. Used by build-and-run.ps1.

# Puts facts into the braces of a text.
function Expand-Facts([string] $Text) {
    if (-not $Text.Contains('{')) { return $Text }
    foreach ($fact in $run.Facts.Keys) {
        $Text = $Text.Replace('{' + $fact + '}', [string] $run.Facts[$fact])
    }
    return $Text
}

# The text of a name in words, filled in, without its indentation.
function Get-Words([string] $Name) {
    $all = (Get-Content -Raw -LiteralPath (Join-Path $cluster 'words')).Replace("`r", '')
    $entry = [regex]::Match($all, '(?m)^' + [regex]::Escape($Name) + '\n((?:  .*\n?)+)')
    if (-not $entry.Success) { return '' }
    return Expand-Facts ($entry.Groups[1].Value.TrimEnd() -replace '(?m)^  ', '')
}

# Ends the run with what is wrong and what to do about it.
function Stop-Run([string] $Name, [string] $ByHand = '') {
    $lines = @((Get-Words $Name) -split '\n')
    Write-Host 'error: ' -ForegroundColor Red -NoNewline
    Write-Host $lines[0]
    foreach ($line in @($lines | Select-Object -Skip 1)) { Write-Host "  $line" }
    if ($ByHand) { Write-Host "    $ByHand" }
    if ($run.Untouched) { Write-Host "  $(Get-Words 'nothing-applied')" }
    throw (New-Object System.OperationCanceledException $Name)
}

function Write-Caution([string] $Text) {
    $lines = @($Text -split '\n')
    Write-Host '  warning: ' -ForegroundColor Yellow -NoNewline
    Write-Host $lines[0]
    foreach ($line in @($lines | Select-Object -Skip 1)) { Write-Host "  $line" }
}

function Write-Note([string] $Name, [string] $Text) {
    Write-Host ('  {0,-24} {1}' -f $Name, $Text)
}

# A command as it can be pasted into a shell.
function Format-Command([string[]] $Words) {
    $quoted = foreach ($word in $Words) {
        if ($word -match '[^A-Za-z0-9_./:=+\\-]') { "'" + $word.Replace("'", "''") + "'" } else { $word }
    }
    return $quoted -join ' '
}

# A line that a command wrote; Windows PowerShell makes errors of those on standard error.
function Add-Said($Line) {
    # Of an empty one the record's text would be the name of a type.
    $isError = $Line -is [System.Management.Automation.ErrorRecord]
    $text = if ($isError) { $Line.Exception.Message } else { "$Line" }
    if ($isError) { $run.Err += $text } else { $run.Out += $text }
    if ($text.Trim()) { Write-Progress -Activity $run.Label -Status $text }
}

# The one place where a program is started: how and its words, see plan. What it writes is in
# $run.Out and $run.Err, its exit code in $run.Code.
function Invoke-Planned([string] $How, [string[]] $Words) {
    $run.Code = 0
    $run.Out = @()
    $run.Err = @()
    if ($run.DryRun) { Write-Host "  $(Format-Command $Words)"; return }
    # In Windows PowerShell `curl` alone is another name of Invoke-WebRequest.
    $program = @(Get-Command $Words[0] -CommandType Application -ErrorAction SilentlyContinue)
    if (-not $program) { Stop-Run "no-$($Words[0])-program" }
    if ("$How $($Words[0]) $($Words[1])" -eq 'run kubectl --context') { $run.Untouched = $false }
    $path = $program[0].Path
    $arguments = @($Words | Select-Object -Skip 1)
    $ErrorActionPreference = 'Continue'
    $PSNativeCommandUseErrorActionPreference = $false
    if ($How -eq 'start') {
        $run.ForwardSaid = [System.IO.Path]::GetTempFileName()
        $line = @($arguments | ForEach-Object { if ($_ -match '\s') { '"' + $_ + '"' } else { $_ } })
        $run.Forward = Start-Process -FilePath $path -ArgumentList $line -PassThru -NoNewWindow -RedirectStandardOutput $run.ForwardSaid
        return
    }
    if ($How -eq 'show') { & $path @arguments | Out-Host }
    else { & $path @arguments 2>&1 | ForEach-Object { Add-Said $_ } }
    $run.Code = $LASTEXITCODE
    Write-Progress -Activity $run.Label -Completed
}

# What a command of the plan came to: a judge's view, or success and the time that it took.
function Complete-Planned([string] $Name, [string] $How, [string[]] $Words, [double] $Seconds) {
    if ($How -eq 'ask') { $judge = $judges[$Name]; & $judge; return }
    if ($How -eq 'start' -or $run.Step -eq 'hints') { return }
    if ($run.Code -ne 0) { Stop-Failed $Name $Words }
    if ($How -eq 'run') { Write-Note $run.Label ('{0,4} s' -f [math]::Floor($Seconds)) }
}

# Whether all these flags are set.
function Test-Flags([string] $Flags) {
    foreach ($flag in $Flags -split ',') {
        if ($flag -ne '-' -and $run.Flags -notcontains $flag) { return $false }
    }
    return $true
}

# One command, of words with facts in them.
function Invoke-Words([string] $Name, [string] $How, [string[]] $Templates) {
    $run.Label = $Name.Replace('-', ' ')
    if ("$Templates" -like '*{image}*') { $run.Label += ' ' + $run.Facts['image'] }
    if ($Templates -contains '{workload}') { $run.Label = $run.Facts['workload'] -replace '^.*/', '' }
    $words = @(foreach ($template in $Templates) {
            if ($template -eq '{images}') {
                foreach ($image in $run.Targets) { "millrace/${image}:$($run.Facts['tag'])" }
            }
            else { Expand-Facts $template }
        })
    $watch = [System.Diagnostics.Stopwatch]::StartNew()
    Invoke-Planned $How $words
    if (-not $run.DryRun) { Complete-Planned $Name $How $words $watch.Elapsed.TotalSeconds }
}

# A line of the plan: not at all, once, or for each image or workload.
function Invoke-Line([string] $Name, [string] $When, [string] $How, [string[]] $Templates) {
    if (-not (Test-Flags $When)) { return }
    if ($run.DryRun) {
        $note = Get-Words "when-$When"
        if ($note) { Write-Host "  # $note" }
    }
    $fact = ''
    $values = @('once')
    if ("$Templates" -like '*{image}*') { $fact = 'image'; $values = $run.Targets }
    if ($Templates -contains '{workload}') { $fact = 'workload'; $values = $run.Workloads }
    foreach ($value in $values) {
        if ($fact) { $run.Facts[$fact] = $value }
        Invoke-Words $Name $How $Templates
    }
}

# All lines of a step, and what is done before and after it.
function Invoke-Step([string] $Step) {
    $run.Step = $Step
    if ('hints', 'status', 'logs' -notcontains $Step) { Write-Host $Step -ForegroundColor Cyan }
    Invoke-Aside "before-$Step"
    foreach ($line in Get-Content -LiteralPath (Join-Path $cluster 'plan')) {
        $fields = @($line.Trim() -split '\s+')
        if ($fields[0] -ne $Step) { continue }
        Invoke-Line $fields[1] $fields[2] $fields[3] @($fields | Select-Object -Skip 4)
    }
    Invoke-Aside "after-$Step"
}

function Invoke-Aside([string] $Name) {
    if ($run.DryRun -or -not $asides.ContainsKey($Name)) { return }
    $aside = $asides[$Name]
    & $aside
}
