//! The folder whose scenarios are offered; nothing outside of it is read.

use std::path::{Component, Path, PathBuf};

use steptime_scenarios::Files;

use crate::failure::Failure;

/// Largest file that is read.
const MOST_BYTES: u64 = 4 << 20;

/// A folder, or none: then no file is read at all.
#[derive(Clone)]
pub(super) struct Folder(Option<PathBuf>);

impl Folder {
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self(None)) };
        let failed = |message: String| Failure::File { path: path.to_owned(), message };
        let whole = path.canonicalize().map_err(|error| failed(error.to_string()))?;
        if whole.is_dir() { Ok(Self(Some(whole))) } else { Err(failed("is not a folder".to_owned())) }
    }

    /// Names of its scenarios, sorted.
    pub(super) fn scenarios(&self) -> Vec<String> {
        let Some(entries) = self.0.as_ref().and_then(|folder| folder.read_dir().ok()) else {
            return Vec::new();
        };
        let name = |entry: std::fs::DirEntry| entry.file_name().into_string().ok();
        let mut names: Vec<String> =
            entries.flatten().filter_map(name).filter(|name| is_scenario(name)).collect();
        names.sort();
        names
    }

    /// A scenario by its name.
    pub(super) fn scenario(&self, name: &str) -> Option<String> {
        if is_scenario(name) && Path::new(name).components().count() == 1 {
            self.text(name).ok()
        } else {
            None
        }
    }

    /// A file by its path in the folder. Links are followed as long as they stay inside.
    fn text(&self, name: &str) -> Result<String, String> {
        let folder = self.0.as_ref().ok_or("this server was started without a folder and reads no files")?;
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if name.contains('\0') || !Path::new(name).components().all(plain) {
            return Err("is outside of the served folder".to_owned());
        }
        let path = folder.join(name).canonicalize().map_err(|error| error.to_string())?;
        if !path.starts_with(folder) {
            return Err("is outside of the served folder".to_owned());
        }
        let facts = path.metadata().map_err(|error| error.to_string())?;
        if !facts.is_file() || facts.len() > MOST_BYTES {
            return Err("is no file, or too large".to_owned());
        }
        std::fs::read_to_string(&path).map_err(|error| error.to_string())
    }
}

fn is_scenario(name: &str) -> bool {
    let toml = Path::new(name).extension().is_some_and(|extension| extension == "toml");
    toml && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

impl Files for Folder {
    fn read(&self, name: &str) -> Result<String, String> {
        self.text(name).map_err(|message| format!("{name}: {message}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_outside_are_not_read() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret.toml"), "name = 1").unwrap();
        let served = outside.path().join("served");
        std::fs::create_dir_all(served.join("models")).unwrap();
        std::fs::write(served.join("one.toml"), "one").unwrap();
        std::fs::write(served.join("models/two.toml"), "two").unwrap();
        std::fs::write(served.join(".hidden.toml"), "three").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("../secret.toml", served.join("link.toml")).unwrap();
        let folder = Folder::open(Some(&served)).unwrap();
        assert_eq!(folder.scenario("one.toml").as_deref(), Some("one"));
        assert_eq!(folder.read("models/two.toml").as_deref(), Ok("two"));
        for name in
            ["../secret.toml", "models/../../secret.toml", "link.toml", "/etc/passwd", "models", "one.toml\0"]
        {
            assert!(folder.read(name).is_err(), "{name}");
            assert_eq!(folder.scenario(name), None, "{name}");
        }
        assert_eq!(folder.scenario(".hidden.toml"), None);
        assert!(Folder::open(None).unwrap().read("one.toml").is_err());
    }
}
