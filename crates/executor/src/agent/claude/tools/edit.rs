//! Reading and writing single text files.

use std::fmt::Write as _;

use model::RepoPath;
use serde::Deserialize;

use super::{Said, Tools};
use crate::toolbox::{Tree, TreeError};

/// The largest file that is read or edited, in bytes.
const LARGEST_FILE: u64 = 5 << 20;
/// The most characters that one answer shows of a file.
const LONGEST_TEXT: usize = 50_000;
/// The most names that the view of a folder shows.
const MOST_NAMES: usize = 500;

/// The input of `str_replace_based_edit_tool`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(in super::super) enum Edit {
    View {
        path: String,
        view_range: Option<[i64; 2]>,
    },
    Create {
        path: String,
        file_text: String,
    },
    StrReplace {
        path: String,
        old_str: String,
        #[serde(default)]
        new_str: String,
    },
    Insert {
        path: String,
        insert_line: usize,
        insert_text: String,
    },
}

/// The input of `read_file`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ReadFile {
    path: String,
    first_line: Option<usize>,
    lines: Option<usize>,
}

impl Edit {
    pub(super) fn run(self, tools: &Tools<'_>) -> Said {
        let done = match self {
            Self::View { path, view_range } => view(tools, &path, view_range),
            Self::Create { path, file_text } => create(tools, &path, &file_text),
            Self::StrReplace { path, old_str, new_str } => replace(tools, &path, &old_str, &new_str),
            Self::Insert { path, insert_line, insert_text } => {
                insert(tools, &path, insert_line, &insert_text)
            }
        };
        done.unwrap_or_else(|error| error)
    }
}

impl ReadFile {
    pub(super) fn run(self, tools: &Tools<'_>) -> Said {
        let text = match text_of(&tools.toolbox.tree, &tools.relative(&self.path)) {
            Ok(text) => text,
            Err(error) => return error,
        };
        let skipped = self.first_line.unwrap_or(1).saturating_sub(1);
        let wanted = text.split_inclusive('\n').skip(skipped).take(self.lines.unwrap_or(usize::MAX));
        Said::text(cut(wanted.collect(), "ask for fewer lines with first_line and lines"))
    }
}

fn view(tools: &Tools<'_>, path: &str, range: Option<[i64; 2]>) -> Result<Said, Said> {
    let tree = &tools.toolbox.tree;
    let path = tools.relative(path);
    if let Ok(names) = tree.list(&path) {
        return Ok(view_folder(tree, names));
    }
    let text = text_of(tree, &path)?;
    let total = text.lines().count();
    let [first, last] = range.unwrap_or([1, -1]);
    let first = usize::try_from(first).unwrap_or(0);
    let last = if last == -1 { total.max(1) } else { usize::try_from(last).unwrap_or(0) };
    if first == 0 || first > last || first > total.max(1) {
        return Err(Said::error(format!(
            "view_range must be [first, last] with 1 <= first <= last; `{path}` has {total} lines, and -1 stands \
             for the last"
        )));
    }
    let mut shown = String::new();
    for (number, line) in text.lines().enumerate().take(last).skip(first - 1) {
        let _ = writeln!(shown, "{:>6}\t{line}", number + 1);
        if shown.len() > LONGEST_TEXT {
            break;
        }
    }
    Ok(Said::text(cut(shown, "ask for fewer lines with view_range")))
}

/// The folder and the folders in it.
fn view_folder(tree: &Tree, names: Vec<crate::toolbox::Listed>) -> Said {
    let mut shown = Vec::new();
    for name in names {
        let inner = if name.is_folder { tree.list(&name.path).unwrap_or_default() } else { Vec::new() };
        for name in std::iter::once(name).chain(inner) {
            shown.push(format!("{}{}", name.path, if name.is_folder { "/" } else { "" }));
        }
    }
    if shown.len() > MOST_NAMES {
        let rest = shown.len() - MOST_NAMES;
        shown.truncate(MOST_NAMES);
        shown.push(format!("[{rest} more names; view one folder, or use glob]"));
    }
    Said::text(if shown.is_empty() { "The folder is empty.".to_owned() } else { shown.join("\n") })
}

fn create(tools: &Tools<'_>, path: &str, text: &str) -> Result<Said, Said> {
    let path = tools.writable(path)?;
    let existed = tools.toolbox.tree.exists(path.as_str()).map_err(explained)?;
    write(tools, &path, text)?;
    let done = if existed { "Replaced" } else { "Created" };
    Ok(Said::text(format!("{done} `{path}` ({} bytes).", text.len())))
}

fn replace(tools: &Tools<'_>, path: &str, old: &str, new: &str) -> Result<Said, Said> {
    let path = tools.writable(path)?;
    let text = text_of(&tools.toolbox.tree, path.as_str())?;
    if old.is_empty() {
        return Err(Said::error("old_str is empty; use insert or create instead"));
    }
    let places: Vec<usize> = text.match_indices(old).map(|(at, _)| at).collect();
    match places[..] {
        [at] => {
            let changed = format!("{}{new}{}", &text[..at], &text[at + old.len()..]);
            if changed == text {
                return Err(Said::error("old_str and new_str are the same; nothing was changed"));
            }
            write(tools, &path, &changed)?;
            Ok(Said::text(format!("Changed `{path}`.\n{}", around(&changed, line_at(&text, at), new))))
        }
        [] => Err(not_found(&path, &text, old)),
        _ => {
            let lines: Vec<_> = places.iter().take(20).map(|at| line_at(&text, *at).to_string()).collect();
            Err(Said::error(format!(
                "old_str is in `{path}` {} times, at lines {}; add lines around it until it is there once",
                places.len(),
                lines.join(", ")
            )))
        }
    }
}

fn insert(tools: &Tools<'_>, path: &str, line: usize, inserted: &str) -> Result<Said, Said> {
    let path = tools.writable(path)?;
    let text = text_of(&tools.toolbox.tree, path.as_str())?;
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    if line > lines.len() {
        let total = lines.len();
        return Err(Said::error(format!("insert_line must be between 0 and {total}, the lines of `{path}`")));
    }
    // The line before must end, and so must the inserted text if another line follows.
    let before = if line > 0 && !lines[line - 1].ends_with('\n') { "\n" } else { "" };
    let after = if line < lines.len() && !inserted.ends_with('\n') { "\n" } else { "" };
    let inserted = format!("{before}{inserted}{after}");
    lines.insert(line, &inserted);
    let changed = lines.concat();
    write(tools, &path, &changed)?;
    Ok(Said::text(format!("Changed `{path}`.\n{}", around(&changed, line + 1, &inserted))))
}

fn write(tools: &Tools<'_>, path: &RepoPath, text: &str) -> Result<(), Said> {
    if text.len() as u64 > LARGEST_FILE {
        return Err(Said::error(format!("`{path}` would have {} bytes; at most {LARGEST_FILE}", text.len())));
    }
    tools.toolbox.tree.write(path.as_str(), text.as_bytes()).map_err(explained)
}

fn text_of(tree: &Tree, path: &str) -> Result<String, Said> {
    let bytes = tree.read(path, LARGEST_FILE).map_err(explained)?;
    String::from_utf8(bytes)
        .map_err(|_| Said::error(format!("`{path}` is not UTF-8 text; use bash to look at it")))
}

fn explained(error: TreeError) -> Said {
    let next = match &error {
        TreeError::Missing(_) => "; look for it with glob",
        TreeError::Outside(_) => "; paths are relative to the root of the repository",
        TreeError::TooLarge { .. } => "; look at parts of it with grep or bash",
        TreeError::NotAFile { .. } | TreeError::Io { .. } => "",
    };
    Said::error(format!("{error}{next}"))
}

/// Why `old` is not in the text, with the lines that come nearest.
fn not_found(path: &RepoPath, text: &str, old: &str) -> Said {
    let mut message =
        format!("old_str is not in `{path}`; it must match exactly, with every space and line end");
    if text.contains("\r\n") && !old.contains("\r\n") && text.replace("\r\n", "\n").contains(old) {
        message.push_str(". The file's lines end with \\r\\n: write them so in old_str and new_str");
    } else if let Some(wanted) = old.lines().map(str::trim).find(|line| !line.is_empty()) {
        let near = text.lines().enumerate().filter(|(_, line)| line.contains(wanted)).take(5);
        let near: Vec<_> = near.map(|(number, line)| format!("{:>6}\t{line}", number + 1)).collect();
        if !near.is_empty() {
            message.push_str(". Lines that hold its first line:\n");
            message.push_str(&near.join("\n"));
        }
    }
    Said::error(cut(message, "view the file"))
}

/// The changed lines with a few around them.
fn around(text: &str, line: usize, changed: &str) -> String {
    let first = line.saturating_sub(4);
    let count = changed.lines().count() + 7;
    let lines = text.lines().enumerate().skip(first).take(count.min(60));
    lines.map(|(number, line)| format!("{:>6}\t{line}", number + 1)).collect::<Vec<_>>().join("\n")
}

fn line_at(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn cut(text: String, hint: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        None => text,
        Some((end, _)) => format!("{}\n[cut after {LONGEST_TEXT} characters; {hint}]", &text[..end]),
    }
}
