//! Files that a scenario names: read from a folder, and remembered, so that another machine can be given them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use steptime_scenarios::Files;

/// Bytes of the longest file.
const LONGEST: u64 = 1 << 30;

/// Texts by the name that the scenario calls them, and where others are found.
pub(crate) struct Known {
    texts: Mutex<BTreeMap<String, String>>,
    folder: Option<PathBuf>,
}

impl Known {
    /// Files of a folder.
    pub(crate) fn beside(folder: &str) -> Self {
        Self { texts: Mutex::default(), folder: Some(PathBuf::from(folder)) }
    }

    /// These texts and no others.
    pub(crate) fn only(texts: BTreeMap<String, String>) -> Self {
        Self { texts: Mutex::new(texts), folder: None }
    }

    /// What has been read.
    pub(crate) fn texts(&self) -> BTreeMap<String, String> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Files for Known {
    fn read(&self, name: &str) -> Result<String, String> {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = texts.get(name) {
            return Ok(text.clone());
        }
        let Some(folder) = &self.folder else {
            return Err(format!("{name}: is not among the files that came with the sweep"));
        };
        let path = folder.join(name);
        let text = read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        texts.insert(name.to_owned(), text.clone());
        Ok(text)
    }
}

/// The text of a file; devices and pipes need not end.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let bytes = File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)?;
    if bytes as u64 > LONGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 1 GiB"));
    }
    Ok(text)
}
