# What the answers to the plan's questions mean, and what is done before and after some steps.
# Used by build-and-run.ps1.

$gib = 1073741824

function Get-Answer { return ($run.Out -join "`n").Trim() }

function Get-VersionIn([string] $Text) {
    $version = [regex]::Match($Text, '"gitVersion":\s*"v(\d+\.\d+(\.\d+)?)')
    if ($version.Success) { return $version.Groups[1].Value }
    return '0.0'
}

function Test-Older([string] $Version, [string] $Than) {
    if ($Version -notmatch '^\d+\.\d+(\.\d+)?$') { return $false }
    return [version] $Version -lt [version] $Than
}

# Kubernetes writes 8022032Ki, 7834Mi, 8Gi, or bytes.
function Get-LargestGib([string] $Text) {
    $units = @{ 'Ki' = 1024; 'Mi' = 1048576; 'Gi' = $gib; '' = 1 }
    $most = 0.0
    foreach ($size in [regex]::Matches($Text, '(\d+)(Ki|Mi|Gi)?')) {
        $bytes = [double] $size.Groups[1].Value * $units[$size.Groups[2].Value]
        if ($bytes -gt $most) { $most = $bytes }
    }
    return $most / $gib
}

# The overlay's models that an Ollama serves, by the engine's names.
function Get-OllamaModels {
    $entries = @()
    $inside = $false
    foreach ($line in Get-Content -LiteralPath (Join-Path $repo "k8s/overlays/$Overlay/models.yaml")) {
        if ($line -match '^[a-z]') { $inside = $line -match '^models:' }
        if (-not $inside) { continue }
        if ($line -match '^ *- name: *(\S+)') { $entries += @{ Name = $Matches[1]; Provider = '' } }
        if (-not $entries) { continue }
        if ($line -match '^ *engine_model: *(\S+)') { $entries[-1].Name = $Matches[1] }
        if ($line -match '^ *provider: *(\S+)') { $entries[-1].Provider = $Matches[1] }
    }
    return @($entries | Where-Object { $_.Provider -eq 'ollama' } | ForEach-Object { $_.Name })
}

function Confirm-Question([string] $Name) {
    if ($run.Yes) { return $true }
    return (Read-Host "$(Get-Words $Name) [y/N]") -match '^(y|yes)$'
}

function Stop-Forward {
    if ($run.Forward -and -not $run.Forward.HasExited) { $run.Forward.Kill() }
    $run.Forward = $null
    if ($run.Facts.ContainsKey('secrets')) {
        $file = Join-Path $repo "$($run.Facts['secrets'])/smoke.curl"
        if (Test-Path -LiteralPath $file) { Remove-Item -LiteralPath $file }
    }
}

# What a failed command said, and what to do.
function Stop-Failed([string] $Name, [string[]] $Words) {
    foreach ($line in @(($run.Out + $run.Err) | Select-Object -Last 25)) { Write-Host $line }
    switch ($Name) {
        'write' { Stop-Run 'failed-secrets' }
        'check-overlay' { Stop-Run 'failed-secrets' }
        'build-manifests' { Stop-Run 'failed-manifests' }
        'rollout' {
            $run.Workloads = @($run.Facts['workload'])
            Invoke-Step 'hints'
            Stop-Run 'failed-rollout'
        }
    }
    Stop-Run "failed-$($Words[0])" (Format-Command $Words)
}

# One for each line of the plan that asks.
$judges = @{
    'docker' = {
        if ($run.Code -ne 0) { Stop-Run 'no-docker' }
        Write-Note 'docker' (Get-Answer)
    }
    'kubectl' = {
        $run.Facts['found'] = Get-VersionIn (Get-Answer)
        if (Test-Older $run.Facts['found'] '1.29') { Stop-Run 'old-kubectl' }
        Write-Note 'kubectl' $run.Facts['found']
    }
    'contexts' = {
        if ($run.Out -ccontains $run.Facts['context']) { return }
        if ($run.Facts['context'] -eq 'docker-desktop') { Stop-Run 'no-kubernetes' }
        $run.Facts['found'] = $run.Out -join ' '
        Stop-Run 'unknown-context'
    }
    'current-context' = {
        $run.Facts['found'] = Get-Answer
        if (-not $run.Facts['found']) { $run.Facts['found'] = 'not set' }
        if ($run.Facts['found'] -cne $run.Facts['context']) { Stop-Run 'wrong-context' }
    }
    'kubernetes' = {
        if ($run.Code -ne 0) { Stop-Run 'no-answer' }
        $run.Facts['found'] = Get-VersionIn (Get-Answer)
        if (Test-Older $run.Facts['found'] $run.Facts['minimum']) { Stop-Run 'old-kubernetes' }
        Write-Note 'kubernetes' "$($run.Facts['found']), context $($run.Facts['context'])"
    }
    'memory' = {
        if ($run.Code -ne 0) { Stop-Run 'no-answer' }
        $largest = Get-LargestGib (Get-Answer)
        $run.Facts['found'] = $largest.ToString('0.0', [cultureinfo]::InvariantCulture)
        $run.Facts['wanted'] = "$($run.Memory)"
        if ($largest -lt $run.Memory) { Stop-Run 'low-memory' }
        Write-Note 'memory' "$($run.Facts['found']) GiB on the largest node, $($run.Memory) are needed"
    }
    'ollama' = {
        $answered = $run.Code -eq 0
        $tags = (Get-Answer) -replace '\s', ''
        $missing = @(Get-OllamaModels | Where-Object {
                -not ($tags.Contains('"name":"' + $_ + '"') -or $tags.Contains('"name":"' + $_ + ':latest"'))
            })
        if (-not $answered) { Write-Caution (Get-Words 'no-ollama') }
        elseif ($missing) { Write-Caution (Get-Words 'missing-models') }
        else { Write-Note 'ollama' "has the models of $Overlay" }
        foreach ($model in $missing) { Write-Host "    ollama pull $model" }
    }
    'keda' = {
        if ($run.Code -ne 0) { Stop-Failed 'keda' @('kubectl', 'get', 'deployment', 'keda-operator') }
        $run.Facts['found'] = (Get-Answer) -replace '^.*:', ''
        if ($run.Facts['found'] -eq $run.Facts['keda']) { Write-Note 'keda' "$($run.Facts['keda']) is there" }
        elseif (-not $run.Facts['found']) { $run.Flags += 'no-keda' }
        elseif ((Test-Flags 'upgrade') -and (Test-Older $run.Facts['found'] $run.Facts['keda'])) { $run.Flags += 'no-keda' }
        else { Write-Caution (Get-Words 'old-keda') }
    }
    'workloads' = {
        if ($run.Code -ne 0 -or -not $run.Out) { Stop-Failed 'workloads' @('kubectl', 'get', 'deployment') }
        $run.Workloads = @($run.Out | Where-Object { $_ })
    }
    'chat' = {
        $text = ''
        try { $text = ((Get-Answer) | ConvertFrom-Json).choices[0].message.content } catch { Write-Verbose "$_" }
        if (-not $text) {
            foreach ($line in $run.Out + $run.Err + @(Get-Content -LiteralPath $run.ForwardSaid)) { Write-Host $line }
            Stop-Run 'no-chat'
        }
        foreach ($line in $text -split '\n') { Write-Host "  $line" }
    }
    'doors' = { if ($run.Code -eq 0) { $run.Doors = 'doors' } }
}

$asides = @{
    'after-check' = {
        if (-not (Test-Flags 'machine')) { return }
        $drive = (Get-Item -LiteralPath $repo).PSDrive
        if (-not $drive -or -not $drive.Free) { return }
        $run.Facts['found'] = [math]::Floor($drive.Free / $gib)
        $run.Facts['wanted'] = "$($run.Disk)"
        if ($run.Facts['found'] -lt $run.Disk) { Stop-Run 'low-disk' }
        Write-Note 'disk' "$($run.Facts['found']) GiB free, $($run.Disk) are needed"
    }
    'before-images' = { [void] (New-Item -ItemType Directory -Force -Path (Join-Path $repo '.millrace')) }
    'after-images' = {
        if (-not (Test-Flags 'archive,cluster')) { return }
        foreach ($line in (Get-Words 'import-first') -split '\n') { Write-Host "  $line" }
        if (-not (Confirm-Question 'import-question')) {
            Write-Host (Get-Words 'not-imported')
            throw (New-Object System.OperationCanceledException 'not-imported')
        }
    }
    # With a registry of the user's, the overlay is applied through one of ours that renames the images.
    'before-apply' = {
        if (-not (Test-Flags 'registry')) { return }
        $folder = Join-Path $repo $run.Facts['kustomization']
        [void] (New-Item -ItemType Directory -Force -Path $folder)
        $lines = @(
            'apiVersion: kustomize.config.k8s.io/v1beta1', 'kind: Kustomization', 'resources:'
            "  - ../../../k8s/overlays/$Overlay", 'images:'
            foreach ($image in $run.Targets) {
                "  - name: millrace/$image"
                "    newName: $($run.Facts['registry'])/millrace/$image"
            }
        )
        [System.IO.File]::WriteAllText((Join-Path $folder 'kustomization.yaml'), ($lines -join "`n") + "`n")
    }
    # The key goes into a file, because every user of this machine sees a command's words.
    'before-smoke' = {
        $folder = Join-Path $repo $run.Facts['secrets']
        $key = Get-Content -LiteralPath (Join-Path $folder 'api-key.env') |
            ForEach-Object { if ($_ -match '^MILLRACE_API_KEY=(.+)$') { $Matches[1].Trim() } }
        $text = "header = `"Authorization: Bearer $key`"`nheader = `"Content-Type: application/json`"`n"
        [System.IO.File]::WriteAllText((Join-Path $folder 'smoke.curl'), $text)
    }
    'after-smoke' = { Stop-Forward }
    'after-urls' = { foreach ($line in (Get-Words "urls-$($run.Doors)") -split '\n') { Write-Host "  $line" } }
    'before-down' = {
        $question = if (Test-Flags 'keep') { 'keep-question' } else { 'remove-question' }
        if (-not (Confirm-Question $question)) {
            Write-Host (Get-Words 'not-removed')
            throw (New-Object System.OperationCanceledException 'not-removed')
        }
    }
    'after-down' = { Write-Host (Get-Words $(if (Test-Flags 'keep') { 'kept' } else { 'removed' })) }
}
