//! What must hold whatever bytes reach a reader of Leviathan. Each function takes any bytes and panics when a promise
//! is broken; `fuzz/` runs them under cargo-fuzz, and the tests of this crate run them over the same seeds and
//! thousands of mutations of these.

use std::path::Path;

use executor::agent::claude::understand;
use executor::toolbox::Tree;
use model::secrets::Redactor;
use model::{Backlog, Contract, PathPattern, Policy, Problems, RepoPath, is_hidden};

/// One target: its name, which is also that of its folder of seeds, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 8] = [
    ("documents", documents),
    ("patterns", patterns),
    ("diff", diff),
    ("journal", journal),
    ("cosignature", cosignature),
    ("tool_paths", tool_paths),
    ("tool_inputs", tool_inputs),
    ("secrets", secrets),
];

/// A document is read or refused with problems that people can read.
pub fn documents(bytes: &[u8]) {
    readable(Contract::parse("contract.yaml", bytes));
    readable(Backlog::parse("backlog.yaml", bytes));
    readable(Policy::parse("policy.yaml", bytes));
    readable(Policy::parse_operator("operator.yaml", bytes));
}

fn readable<T>(parsed: Result<T, Problems>) {
    let Err(problems) = parsed else { return };
    let text = problems.to_string();
    assert!(!text.is_empty(), "a refusal says why");
    assert!(!text.chars().any(|c| c != '\n' && is_hidden(c)), "a problem holds a hidden character: {text:?}");
}

/// The first line is a pattern, the second a path. What matches exactly matches in any spelling, and a pattern meets
/// itself.
pub fn patterns(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (pattern, path) = text.split_once('\n').unwrap_or((&text, "src/a.py"));
    let Ok(pattern) = PathPattern::parse(pattern) else { return };
    assert!(pattern.overlaps(&pattern) || pattern.as_str().is_empty(), "{pattern} does not meet itself");
    let Ok(path) = RepoPath::parse(path) else { return };
    assert!(!pattern.matches(&path) || pattern.matches_any_spelling(&path), "{pattern} {path}");
    assert!(!pattern.names_literally(&path) || pattern.matches(&path), "{pattern} {path}");
}

/// The answer of `git diff-tree` is read or refused, and no name gets by that leaves the tree or misleads a reader.
pub fn diff(bytes: &[u8]) {
    let _ = target::reads_as_diff(bytes);
    for name in bytes.split(|byte| *byte == 0) {
        let Ok(path) = RepoPath::from_bytes(name) else { continue };
        let is_plain = |part: &str| {
            !matches!(part, "" | "." | "..")
                && !part.eq_ignore_ascii_case(".git")
                && !part.contains(['\\', ':'])
        };
        assert!(path.as_str().split('/').all(is_plain), "{path:?}");
        assert!(!path.as_str().starts_with('-') && !path.as_str().contains(is_hidden), "{path:?}");
    }
}

/// A line of the journal is refused, or is what it says and is written again as the same.
pub fn journal(bytes: &[u8]) {
    if let Ok(line) = journal::Line::decode(bytes) {
        assert_eq!(line.encode(), [bytes, b"\n"].concat(), "there is one spelling");
    }
}

/// A checkpoint of a public log, as that signed it, and the key of a public witness that cosigned it.
const CHECKPOINT: &str = "coachandhorses2026h1.staging.certificate.transparency.goog\n\
    185550722\n\
    YXAM0VmnrfvLaBCOOYSJhCaE5F10oGBOo+hkbDa1kng=\n\
    \n\
    — coachandhorses2026h1.staging.certificate.transparency.goog MpXgsHy8ZwxXnO+WjtVrPxAzL49Rs1gWTkNVNeEa//5peAzaocRCB3qt3EaibjzY5GILLtGgBP7dBhgcSHy+JQh0OAc=\n";
const WITNESS: &str =
    "witness.navigli.sunlight.geomys.org+a3e00fe2+BNy/co4C1Hn1p+INwJrfUlgz7W55dSZReusH/GhUhJ/G";

/// Whatever a witness answers, a note goes on saying what its log signed; and what is taken is the witness's.
pub fn cosignature(bytes: &[u8]) {
    let key: journal::WitnessKey = WITNESS.parse().expect("the key of a witness");
    let shown = journal::Note::parse(CHECKPOINT).expect("a signed note");
    if let Ok(taken) = key.take(shown.clone(), &String::from_utf8_lossy(bytes)) {
        assert_eq!(taken.text(), shown.text());
        let (shown, taken_text) = (shown.to_string(), taken.to_string());
        let added = taken_text.strip_prefix(&shown).expect("the line of the log stays the first");
        assert!(
            added.lines().all(|line| line.starts_with("— witness.navigli.sunlight.geomys.org ")),
            "{added}"
        );
        assert!(key.cosigned(&taken).is_ok());
    }
}

/// The first line is the name of a tool, the rest is what a model sends to it: understood, or refused in words.
pub fn tool_inputs(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (name, input) = bytes.split_at(end);
    let understood = understand(&String::from_utf8_lossy(name), input);
    assert!(understood.err().is_none_or(|refusal| !refusal.is_empty()), "a refusal says why");
}

/// A path that an agent gives to a tool reads and writes nothing outside of its tree.
pub fn tool_paths(bytes: &[u8]) {
    let place = tempfile::tempdir().expect("a temporary folder");
    let (tree, outside) = (place.path().join("tree"), place.path().join("outside"));
    std::fs::create_dir(&tree).expect("a folder");
    std::fs::write(&outside, "sentinel").expect("a file");
    std::os::unix::fs::symlink(&outside, tree.join("link")).expect("a link");
    std::os::unix::fs::symlink("..", tree.join("up")).expect("a link");
    let tools = Tree::open(&tree).expect("a tree");
    let path = String::from_utf8_lossy(bytes);
    for path in [path.as_ref(), &format!("up/{path}"), &format!("../{path}"), &format!("link/{path}")] {
        let _ = tools.write(path, b"written");
        if let Ok(read) = tools.read(path, 1 << 10) {
            assert_eq!(read, b"written", "{path:?} reads from outside");
        }
        let _ = tools.list(path);
        let _ = tools.exists(path);
    }
    assert_eq!(std::fs::read(&outside).expect("the file outside"), b"sentinel", "{path:?}");
    assert_eq!(names_in(place.path()), ["outside", "tree"], "{path:?}");
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Where a text is cut never changes what is taken out of it, and what is clean stays as it is.
pub fn secrets(bytes: &[u8]) {
    let redactor = Redactor::new(["a-secret-of-the-process"]);
    let cleaned = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut stream, mut out) = (redactor.stream(), Vec::new());
        pieces.for_each(|piece| stream.push(piece, &mut out));
        stream.finish(&mut out);
        out
    };
    let whole = cleaned(&mut std::iter::once(bytes));
    let size = 1 + bytes.first().map_or(0, |byte| usize::from(*byte) % 50);
    assert_eq!(whole, cleaned(&mut bytes.chunks(size)), "the pieces have {size} bytes");
    let is_found = |text: &[u8]| text.windows(23).any(|window| window == b"a-secret-of-the-process");
    assert!(!is_found(&whole));
}
