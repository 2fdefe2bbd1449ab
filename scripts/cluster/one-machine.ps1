# Millrace on one machine without Docker. Used by build-and-run.ps1 -OneMachine.

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

# Makes .venv anew when the locked packages are others than those that it was made of.
function Install-Environment([string] $Venv) {
    $venvPython = Join-Path $Venv 'Scripts\python.exe'
    $lock = Join-Path $repo 'requirements-local.lock'
    $stamp = Join-Path $Venv '.made-local'
    $wanted = @($lock, (Join-Path $repo 'pyproject.toml') | ForEach-Object { (Get-FileHash $_).Hash }) -join ' '
    $made = if (Test-Path $stamp) { (Get-Content $stamp -Raw).Trim() } else { '' }
    if ($made -eq "$repo $wanted") { return }

    if (-not (Test-Path $venvPython)) {
        $program, $arguments = Find-Python
        Write-Host "Making .venv with $program $arguments"
        Invoke-Checked $program (@($arguments | Where-Object { $_ }) + @('-m', 'venv', $Venv))
    }
    Write-Host 'Installing the locked packages into .venv'
    $pip = @('-m', 'pip', '--quiet', '--disable-pip-version-check', '--no-input', 'install')
    Invoke-Checked $venvPython ($pip + @('--require-hashes', '-r', $lock))
    Invoke-Checked $venvPython ($pip + @('--no-deps', '--no-build-isolation', '--editable', $repo))
    Set-Content $stamp "$repo $wanted"
}

function Start-OneMachine([string] $Command, [string[]] $Rest) {
    $venv = Join-Path $repo '.venv'
    Install-Environment $venv
    if (-not $Command) { $Command = 'up' }
    & (Join-Path $venv 'Scripts\millrace.exe') $Command @Rest
    exit $LASTEXITCODE
}
