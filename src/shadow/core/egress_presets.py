"""Names for sets of egress rules: the hosts that a package manager or a forge needs."""

from collections.abc import Mapping

PRESETS: Mapping[str, tuple[str, ...]] = {
    "pypi": ("pypi.org", "files.pythonhosted.org"),
    "npm": (".npmjs.org", ".yarnpkg.com"),
    "crates": ("crates.io", "index.crates.io", "static.crates.io"),
    "rust": ("static.rust-lang.org", "sh.rustup.rs"),
    "go": ("proxy.golang.org", "sum.golang.org"),
    "rubygems": ("rubygems.org", "index.rubygems.org"),
    "maven": ("repo.maven.apache.org", "repo1.maven.org"),
    "gradle": ("services.gradle.org", "plugins.gradle.org", "downloads.gradle.org"),
    "packagist": ("packagist.org", "repo.packagist.org"),
    "nuget": ("api.nuget.org", "www.nuget.org"),
    "debian": ("deb.debian.org", "security.debian.org", "snapshot.debian.org"),
    "ubuntu": (".archive.ubuntu.com", "security.ubuntu.com", "ports.ubuntu.com"),
    "alpine": ("dl-cdn.alpinelinux.org",),
    "node": ("nodejs.org",),
    "github": ("github.com", "api.github.com", "codeload.github.com", "objects.githubusercontent.com",
               "raw.githubusercontent.com", "release-assets.githubusercontent.com", "github-cloud.githubusercontent.com"),
    "gitlab": ("gitlab.com",),
    "bitbucket": ("bitbucket.org", "api.bitbucket.org"),
    "huggingface": ("huggingface.co", ".hf.co"),
}  # fmt: skip
