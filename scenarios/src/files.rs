//! Files that a scenario names.

/// What a scenario may refer to besides itself.
pub trait Files {
    /// The text of a file that a scenario names, relative to the scenario's own place.
    ///
    /// # Errors
    /// What the system says when the file cannot be read.
    fn read(&self, name: &str) -> Result<String, String>;
}

/// No files at all: for scenarios that refer to none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&self, name: &str) -> Result<String, String> {
        Err(format!("no file {name}"))
    }
}
