//! What a command writes: text on the standard streams, and files, which appear whole or not at all.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::Failure;

fn failure(path: &Path, error: &io::Error) -> Failure {
    Failure::File { path: path.to_owned(), message: error.to_string() }
}

/// Bytes of the longest input: devices and pipes need not end.
const LONGEST: u64 = 1 << 30;

/// All that a reader has, unless it is longer than any input.
pub(crate) fn all_of(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "longer than 1 GiB"));
    }
    Ok(bytes)
}

/// The same as text.
pub(crate) fn text_of(reader: impl Read) -> io::Result<String> {
    let message = "stream did not contain valid UTF-8";
    String::from_utf8(all_of(reader)?).map_err(|_| io::Error::new(ErrorKind::InvalidData, message))
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    File::open(path).and_then(text_of).map_err(|error| failure(path, &error))
}

/// A file as it shall be written.
pub(crate) struct Output {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

impl Output {
    pub(crate) fn new(path: PathBuf, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path, bytes: bytes.into() }
    }
}

/// How files begin that are being written.
const UNFINISHED: &str = ".tmp-steptime-";
/// After so long a file that is being written, and that nobody holds, is taken for one that a killed process left.
const ABANDONED: Duration = Duration::from_hours(1);

/// Writes files that belong together. Each is written beside its final place, and the first moves there only when
/// all are complete, so that a full disk or a folder without permission leaves no half of the results.
pub(crate) fn write_all(outputs: &[Output]) -> Result<(), Failure> {
    let folders: BTreeSet<&Path> = outputs.iter().map(|output| folder_of(&output.path)).collect();
    folders.into_iter().for_each(tidy);
    let staged = outputs.iter().map(stage).collect::<Result<Vec<_>, _>>()?;
    for (file, Output { path, .. }) in staged.into_iter().zip(outputs) {
        file.persist(path).map_err(|error| failure(path, &error.error))?;
    }
    Ok(())
}

/// Folder of a file.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes what killed processes left in a folder while they were writing there. Those that are at work hold locks of their
/// files from right after these are made; what cannot be told for certain stays.
fn tidy(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            continue;
        }
        let age = entry
            .metadata()
            .ok()
            .filter(fs::Metadata::is_file)
            .and_then(|it| it.modified().ok()?.elapsed().ok());
        if age.is_some_and(|age| age > ABANDONED)
            && let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            // Another process may have been faster.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn stage(Output { path, bytes }: &Output) -> Result<tempfile::NamedTempFile, Failure> {
    if path.is_dir() {
        return Err(Failure::File { path: path.clone(), message: "is a folder".to_owned() });
    }
    let folder = folder_of(path);
    fs::create_dir_all(folder).map_err(|error| failure(folder, &error))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED);
    // Temporary files are private by default; results are as readable as any file that the user creates.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(|error| failure(folder, &error))?;
    // File systems without locks have none to tell by; age alone is then no proof, and nothing is removed.
    let _ = file.as_file().try_lock();
    file.write_all(bytes).map_err(|error| failure(path, &error))?;
    file.as_file().sync_all().map_err(|error| failure(path, &error))?;
    Ok(file)
}

/// Prints on standard output. A reader that has seen enough (`| head`) closes the pipe: that is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    tolerate(out.write_all(text.as_bytes()).and_then(|()| out.flush()), "standard output")
}

/// Prints on standard error, as [`print()`] does.
pub(crate) fn remark(text: &str) -> Result<(), Failure> {
    tolerate(io::stderr().lock().write_all(text.as_bytes()), "standard error")
}

fn tolerate(written: io::Result<()>, stream: &str) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(failure(Path::new(stream), &error)),
        _ => Ok(()),
    }
}

/// A value as JSON, indented, with a line break at the end.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Message(error.to_string()))?;
    Ok(text + "\n")
}
