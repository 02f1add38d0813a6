//! Targets on one machine: each `targets/NAME.yaml` of the data folder is a contract, and `NAME.policy.yaml` beside
//! it the operator's own policy. A file that goes away unregisters nothing.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::Documents;

/// How many bytes a document may have.
const LARGEST: u64 = 1024 * 1024;

/// The folder of contracts.
#[derive(Debug)]
pub(super) struct TargetFolder {
    folder: PathBuf,
}

impl TargetFolder {
    /// The folder `targets` of a data folder. It need not exist.
    pub(super) fn of_data(data: &Path) -> Self {
        Self { folder: data.join("targets") }
    }

    /// What lies there, by path. What cannot be read is a problem.
    pub(super) fn look(&self, problems: &mut Vec<String>) -> Vec<(String, Documents)> {
        let mut found = Vec::new();
        for path in self.contracts(problems) {
            match read(&path) {
                Ok(documents) => found.push((path.display().to_string(), documents)),
                Err(error) => problems.push(format!("{} cannot be read: {error}", path.display())),
            }
        }
        found
    }

    fn contracts(&self, problems: &mut Vec<String>) -> Vec<PathBuf> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                problems.push(format!("{} cannot be read: {error}", self.folder.display()));
                return Vec::new();
            }
        };
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| is_contract(path))
            .collect();
        paths.sort();
        paths
    }
}

fn is_contract(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    !name.starts_with('.') && name.ends_with(".yaml") && !name.ends_with(".policy.yaml")
}

fn read(path: &Path) -> io::Result<Documents> {
    let operator_policy = match document(&path.with_extension("policy.yaml")) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(io::Error::other(format!("its policy beside it: {error}")));
        }
    };
    Ok(Documents { contract: document(path)?, operator_policy, ..Documents::default() })
}

/// The text of a plain file. Anything else could be waited for without end, a pipe for its writer, and is not read.
fn document(path: &Path) -> io::Result<String> {
    let not_blocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(not_blocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it has more than {LARGEST} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_plain_files_of_a_sensible_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("good.yaml"), "x").unwrap();
        symlink(path("good.yaml"), path("link.yaml")).unwrap();
        fs::write(path("latin.yaml"), b"\xff").unwrap();
        fs::write(path("large.yaml"), " ".repeat(LARGEST as usize + 1)).unwrap();
        fs::create_dir(path("folder.yaml")).unwrap();
        symlink("/dev/zero", path("endless.yaml")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe.yaml"), 0o600.into()).unwrap();
        fs::write(path("two.yaml"), "x").unwrap();
        symlink("/dev/zero", path("two.policy.yaml")).unwrap();
        for (name, expected) in [
            ("good.yaml", "ok"),
            ("link.yaml", "ok"),
            ("latin.yaml", "it is not UTF-8"),
            ("large.yaml", "it has more than 1048576 bytes"),
            ("folder.yaml", "it is not a plain file"),
            ("endless.yaml", "it is not a plain file"),
            ("pipe.yaml", "it is not a plain file"),
            ("two.yaml", "its policy beside it: it is not a plain file"),
        ] {
            let read = read(&path(name)).map_or_else(|error| error.to_string(), |_| "ok".to_owned());
            assert_eq!(read, expected, "{name}");
        }
    }
}
