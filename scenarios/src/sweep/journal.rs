//! The journal of a sweep that is running: a line a point, written as the point is there.
//!
//! A killed process leaves whole lines and at most one that is cut off. The next one cuts that off, keeps the rest, and
//! appends what is missing; when all points are there, the ordered result takes the journal's place.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use thiserror::Error;

use super::part::{Shard, SweepHeader, SweepPart, read_part, sweep_line};

/// Why a folder cannot take a sweep.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JournalError {
    /// A file that cannot be used.
    #[error("{}: {message}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// What is there is not whole, or not a part of a sweep.
    #[error("{0}; --restart gives it up")]
    Stale(String),
}

/// Name of a part's file: `sweep.jsonl`, `sweep-2-of-8.journal`.
pub fn part_name(shard: Shard, ending: &str) -> String {
    if shard == Shard::WHOLE {
        format!("sweep.{ending}")
    } else {
        format!("sweep-{}-of-{}.{ending}", shard.index, shard.count)
    }
}

/// What a folder has of a sweep.
#[derive(Debug)]
pub enum Left {
    /// All of it.
    Finished(SweepPart),
    /// A journal, new or from an earlier run, and what it holds.
    Begun(Journal, SweepPart),
}

impl Left {
    /// Looks for a result or a journal of the sweep, and opens a new journal where there is none. What is of another sweep
    /// is an error, unless it shall be given up (`restart`). `result` is where the finished part would be.
    ///
    /// # Errors
    /// The folder or a file in it cannot be used, another process writes the journal, or it holds another sweep.
    pub fn find(
        folder: &Path,
        result: &Path,
        header: &SweepHeader,
        restart: bool,
    ) -> Result<Self, JournalError> {
        let path = folder.join(part_name(header.shard, "journal"));
        fs::create_dir_all(folder).map_err(|error| failure(folder, &error))?;
        let mut file = open(&path)?;
        if restart {
            file.set_len(0).map_err(|error| failure(&path, &error))?;
        } else if result.exists() {
            let text = fs::read_to_string(result).map_err(|error| failure(result, &error))?;
            let part =
                read_part(&result.display().to_string(), &text).map_err(|error| stale(&error.to_string()))?;
            belongs(result, &part.header, header)?;
            fs::remove_file(&path).map_err(|error| failure(&path, &error))?;
            return Ok(Self::Finished(part));
        }
        let text = fs::read(&path).map_err(|error| failure(&path, &error))?;
        let text = String::from_utf8_lossy(&text);
        // A journal whose first line was cut off holds nothing yet.
        let part = if text.contains('\n') {
            let part =
                read_part(&path.display().to_string(), &text).map_err(|error| stale(&error.to_string()))?;
            belongs(&path, &part.header, header)?;
            part
        } else {
            SweepPart { header: header.clone(), rows: Vec::new(), whole_bytes: 0 }
        };
        file.set_len(part.whole_bytes as u64).map_err(|error| failure(&path, &error))?;
        file.seek(SeekFrom::End(0)).map_err(|error| failure(&path, &error))?;
        let journal = Journal { file: Mutex::new(file), path };
        if part.whole_bytes == 0 {
            journal.append(&sweep_line(header))?;
        }
        Ok(Self::Begun(journal, part))
    }
}

/// Opens the journal and takes its lock: two processes must not write one.
fn open(path: &Path) -> Result<File, JournalError> {
    let opened = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path);
    let file = opened.map_err(|error| failure(path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::File {
            path: path.to_owned(),
            message: "another process is at this sweep; give each shard of a sweep its own --shard"
                .to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(failure(path, &error)),
    }
}

fn failure(path: &Path, error: &std::io::Error) -> JournalError {
    JournalError::File { path: path.to_owned(), message: error.to_string() }
}

fn stale(message: &str) -> JournalError {
    JournalError::Stale(message.to_owned())
}

fn belongs(path: &Path, found: &SweepHeader, wanted: &SweepHeader) -> Result<(), JournalError> {
    if found == wanted {
        return Ok(());
    }
    Err(JournalError::File {
        path: path.to_owned(),
        message: format!(
            "holds another sweep: fingerprint {} of {} points, this one is {} of {}; choose another folder, or give the \
             old one up with --restart",
            found.fingerprint, found.points, wanted.fingerprint, wanted.points
        ),
    })
}

/// A journal that is open.
#[derive(Debug)]
pub struct Journal {
    file: Mutex<File>,
    path: PathBuf,
}

impl Journal {
    /// Appends a line, in one call to the system.
    ///
    /// # Errors
    /// What the system says.
    pub fn append(&self, line: &str) -> Result<(), JournalError> {
        // Lines are appended whole: a thread that ended in the middle of something left no half of one.
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.write_all(line.as_bytes()).map_err(|error| failure(&self.path, &error))
    }

    /// Removes it: the result is there.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(self) -> Result<(), JournalError> {
        fs::remove_file(&self.path).map_err(|error| failure(&self.path, &error))
    }
}
