<#
.SYNOPSIS
    Builds Millrace on this Windows machine and runs it.
.DESCRIPTION
    Makes the virtual environment .venv, installs the locked packages and runs `millrace up`: database, queue, workers
    and API in one process. A second run starts at once.

    This is the one-machine mode only. Building images and running on Docker Desktop's Kubernetes will be added to this
    script together with the k8s/ folder; neither exists yet.
.PARAMETER Command
    The millrace command to run; `up` unless you say otherwise, for example `demo` or `doctor`.
.PARAMETER Python
    The Python to use, 3.11 or newer; found by itself if left out.
.EXAMPLE
    .\build-and-run.ps1
.EXAMPLE
    .\build-and-run.ps1 demo
#>
[CmdletBinding()]
param(
    [Parameter(Position = 0)] [string] $Command = 'up',
    [string] $Python = '',
    [Parameter(ValueFromRemainingArguments)] [string[]] $Rest = @()
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'
Set-Location $PSScriptRoot

$venv = Join-Path $PSScriptRoot '.venv'
$venvPython = Join-Path $venv 'Scripts\python.exe'
$lock = Join-Path $PSScriptRoot 'requirements-local.lock'
$stamp = Join-Path $venv '.made-local'

function Find-Python {
    # Each entry is a program and its arguments; the launcher `py` knows every installed version.
    $candidates = @(
        @('py', '-3.13'), @('py', '-3.12'), @('py', '-3.11'), @('python'), @('python3')
    )
    if ($Python) { $candidates = @(, @($Python)) + $candidates }
    foreach ($candidate in $candidates) {
        $program, $arguments = $candidate
        if (-not (Get-Command $program -ErrorAction SilentlyContinue)) { continue }
        try {
            # Windows PowerShell turns a word on standard error into an exception.
            & $program @($arguments | Where-Object { $_ }) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>$null
            if ($LASTEXITCODE -eq 0) { return , $candidate }
        }
        catch { continue }
    }
    throw 'Millrace needs Python 3.11 or newer and found none. Install it with: winget install Python.Python.3.13'
}

function Invoke-Checked([string] $Program, [string[]] $Arguments) {
    & $Program @Arguments
    if ($LASTEXITCODE -ne 0) { throw "$Program $($Arguments -join ' ') ended with $LASTEXITCODE" }
}

$wanted = @($lock, (Join-Path $PSScriptRoot 'pyproject.toml') | ForEach-Object { (Get-FileHash $_).Hash }) -join ' '
$made = if (Test-Path $stamp) { (Get-Content $stamp -Raw).Trim() } else { '' }

if ($made -ne "$PSScriptRoot $wanted") {
    if (-not (Test-Path $venvPython)) {
        $program, $arguments = Find-Python
        Write-Host "Making .venv with $program $arguments"
        Invoke-Checked $program (@($arguments | Where-Object { $_ }) + @('-m', 'venv', $venv))
    }
    Write-Host 'Installing the locked packages into .venv'
    $pip = @('-m', 'pip', '--quiet', '--disable-pip-version-check', '--no-input', 'install')
    Invoke-Checked $venvPython ($pip + @('--require-hashes', '-r', $lock))
    Invoke-Checked $venvPython ($pip + @('--no-deps', '--no-build-isolation', '--editable', $PSScriptRoot))
    Set-Content $stamp "$PSScriptRoot $wanted"
}

& (Join-Path $venv 'Scripts\millrace.exe') $Command @Rest
exit $LASTEXITCODE
