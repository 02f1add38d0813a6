//! The paths that no document can open with a wildcard, in the dialect of [`crate::pattern`].

use std::sync::LazyLock;

use crate::pattern::{PathPattern, Spelled};

/// What a protected path steers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protection {
    /// People, platforms or agents: workflows, owners, instructions, editors.
    Platform,
    /// The checks, or code that runs by itself: test configuration, build scripts, hooks.
    Checks,
}

impl Protection {
    /// What it steers, as a clause.
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Platform => "it steers people, platforms or agents",
            Self::Checks => "it steers the checks or runs by itself",
        }
    }
}

/// Every built-in list, for people: its title and its patterns.
pub fn built_in_rules() -> [(&'static str, &'static [&'static str]); 3] {
    [
        ("Never changed", UNTOUCHABLE),
        ("Protected, because it steers people, platforms or agents", PLATFORM),
        ("Protected, because it steers the checks or runs by itself", CHECKS),
    ]
}

/// The built-in pattern that forbids ever changing `path`.
pub(super) fn untouchable(path: &Spelled) -> Option<&'static str> {
    first_match(&UNTOUCHABLE_PATTERNS, path)
}

/// The built-in pattern that protects `path`, and why it does.
pub(super) fn protection(path: &Spelled) -> Option<(&'static str, Protection)> {
    let platform = first_match(&PLATFORM_PATTERNS, path).map(|pattern| (pattern, Protection::Platform));
    platform.or_else(|| first_match(&CHECKS_PATTERNS, path).map(|pattern| (pattern, Protection::Checks)))
}

/// What governs Leviathan and what makes git fetch or run something, with the short names that some file
/// systems give them. `.git` itself is no [`RepoPath`] in any spelling.
const UNTOUCHABLE: &[&str] =
    &[".leviathan", ".leviathan/**", "leviat~?", "leviat~?/**", "**/.gitmodules", "**/gitmod~?"];

const PLATFORM: &[&str] = &[
    // Continuous integration and deployment
    ".github/**",
    ".gitlab/**",
    ".gitlab-ci.{yml,yaml}",
    ".gitea/**",
    ".forgejo/**",
    ".circleci/**",
    ".buildkite/**",
    ".woodpecker/**",
    ".woodpecker.{yml,yaml}",
    ".drone.{yml,yaml}",
    ".travis.yml",
    "appveyor.yml",
    "azure-pipelines*.{yml,yaml}",
    "bitbucket-pipelines.yml",
    "cloudbuild.{yml,yaml}",
    "**/Jenkinsfile",
    // Review and dependency robots
    "**/CODEOWNERS",
    "**/OWNERS",
    "**/renovate.{json,json5}",
    "**/.renovaterc*",
    ".mergify.yml",
    // What git does with other files
    "**/.gitattributes",
    "**/.gitconfig",
    "**/.lfsconfig",
    "**/.mailmap",
    // Instructions to agents
    "**/AGENTS.md",
    "**/AGENT.md",
    "**/CLAUDE.md",
    "**/CLAUDE.local.md",
    "**/GEMINI.md",
    "**/.claude/**",
    "**/.codex/**",
    "**/.cursor/**",
    "**/.gemini/**",
    "**/.agents/**",
    "**/.cursorrules",
    "**/.windsurfrules",
    "**/.clinerules",
    "**/.aider*",
    "**/.mcp.json",
    // Editors and shells that run what they find
    "**/.vscode/**",
    "**/.idea/**",
    "**/.devcontainer/**",
    "**/.devcontainer.json",
    "**/.envrc",
    "**/.editorconfig",
];

const CHECKS: &[&str] = &[
    // Python
    "**/conftest.py",
    "**/pytest.ini",
    "**/.pytest.ini",
    "**/pytest.py",
    "**/tox.ini",
    "**/noxfile.py",
    "**/setup.cfg",
    "**/setup.py",
    "**/pyproject.toml",
    "**/sitecustomize.py",
    "**/usercustomize.py",
    "**/*.pth",
    "**/ruff.toml",
    "**/.ruff.toml",
    "**/mypy.ini",
    "**/.mypy.ini",
    "**/pyrightconfig.json",
    "**/.flake8",
    "**/.pylintrc",
    "**/pylintrc",
    "**/.coveragerc",
    "**/.bandit",
    "**/bandit.{yml,yaml}",
    "**/.secrets.baseline",
    "**/pip.conf",
    // Hooks and task runners
    "**/.pre-commit-config.yaml",
    "**/.husky/**",
    "**/lefthook.{yml,yaml}",
    "**/Makefile",
    "**/GNUmakefile",
    "**/*.mk",
    "**/CMakeLists.txt",
    "**/justfile",
    "**/.justfile",
    "**/Taskfile.{yml,yaml}",
    "**/Rakefile",
    // Rust
    "**/build.rs",
    "**/Cargo.toml",
    "**/.cargo/**",
    "**/rust-toolchain",
    "**/rust-toolchain.toml",
    "**/clippy.toml",
    "**/.clippy.toml",
    "**/rustfmt.toml",
    "**/.rustfmt.toml",
    "**/deny.toml",
    // JavaScript
    "**/package.json",
    "**/.npmrc",
    "**/.yarnrc*",
    "**/.pnpmfile.cjs",
    "**/tsconfig*.json",
    "**/.eslintrc*",
    "**/.eslintignore",
    "**/.prettierrc*",
    "**/.babelrc*",
    "**/.mocharc*",
    "**/{babel,biome,eslint,jest,karma,playwright,prettier,rollup,vite,vitest,webpack}.{conf,config}.*",
    "**/biome.json*",
    // Java, Ruby, PHP, Go
    "**/pom.xml",
    "**/.mvn/**",
    "**/mvnw*",
    "**/gradlew*",
    "**/gradle.properties",
    "**/*.gradle{,.kts}",
    "**/.rspec",
    "**/.rubocop*.yml",
    "**/composer.json",
    "**/phpunit.xml*",
    "**/.golangci.*",
];

static UNTOUCHABLE_PATTERNS: LazyLock<Vec<PathPattern>> = LazyLock::new(|| parsed(UNTOUCHABLE));
static PLATFORM_PATTERNS: LazyLock<Vec<PathPattern>> = LazyLock::new(|| parsed(PLATFORM));
static CHECKS_PATTERNS: LazyLock<Vec<PathPattern>> = LazyLock::new(|| parsed(CHECKS));

fn parsed(patterns: &[&str]) -> Vec<PathPattern> {
    patterns
        .iter()
        .map(|text| PathPattern::parse(text).expect("the built-in patterns are patterns"))
        .collect()
}

fn first_match(patterns: &'static [PathPattern], path: &Spelled) -> Option<&'static str> {
    patterns.iter().find(|pattern| pattern.matches_any_spelling_of(path)).map(PathPattern::as_str)
}
