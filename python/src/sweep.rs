//! Sweeps: points in batches, and the journal of what is there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use steptime_scenarios::{
    self as scenarios, Draft, Left, Shard, SweepHeader, SweepPart, SweepRow, part_name, sweep_csv, sweep_line,
};

use crate::files::Known;
use crate::{Source, pool, raised};

/// A sweep that is ready to be played, and the threads for it.
#[pyclass(frozen)]
pub(crate) struct Sweep {
    read: scenarios::Sweep,
    files: Known,
    header: SweepHeader,
    pool: rayon::ThreadPool,
}

#[pymethods]
impl Sweep {
    /// `texts` are the files that the scenario names; without them they are read from its folder.
    #[new]
    fn new(
        py: Python<'_>,
        source: Source,
        texts: Option<BTreeMap<String, String>>,
        jobs: Option<usize>,
    ) -> PyResult<Self> {
        py.detach(|| {
            let draft = Draft::read(&source.name, &source.text, &source.overrides).map_err(raised)?;
            let files = texts.map_or_else(|| Known::beside(&source.folder), Known::only);
            let pool = pool(jobs)?;
            let sweep = pool.install(|| scenarios::Sweep::read(&draft, &files)).map_err(raised)?;
            let header = sweep.header(Shard::WHOLE);
            Ok(Self { read: sweep, files, header, pool })
        })
    }

    /// Name of the scenario.
    #[getter]
    fn name(&self) -> &str {
        &self.header.name
    }

    /// Number of points.
    #[getter]
    fn points(&self) -> u64 {
        self.header.points
    }

    /// What tells sweeps apart.
    #[getter]
    fn fingerprint(&self) -> &str {
        &self.header.fingerprint
    }

    /// Threads that play.
    #[getter]
    fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Files that have been read, by name.
    #[getter]
    fn texts(&self) -> BTreeMap<String, String> {
        self.files.texts()
    }

    /// First line of the results.
    fn header(&self) -> String {
        sweep_line(&self.header)
    }

    /// Plays points and returns their lines, in the order of the points given.
    fn play(&self, py: Python<'_>, points: Vec<u64>) -> PyResult<Vec<String>> {
        let rows = Mutex::new(BTreeMap::new());
        py.detach(|| {
            let keep = |row: SweepRow| -> Result<(), std::convert::Infallible> {
                let line = sweep_line(&row);
                rows.lock().unwrap_or_else(PoisonError::into_inner).insert(row.point, line);
                Ok(())
            };
            match self.pool.install(|| self.read.play(&points, &self.files, &keep)) {
                Ok(()) => {}
            }
        });
        let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
        let missing = |point: &u64| raised(format!("point {point} was not played"));
        points.iter().map(|point| rows.remove(point).ok_or_else(|| missing(point))).collect()
    }

    /// The table of lines, as `sweep.csv` has it.
    fn csv(&self, py: Python<'_>, lines: Vec<String>) -> PyResult<String> {
        py.detach(|| {
            let rows = lines.iter().map(|line| serde_json::from_str(line));
            let rows: Vec<SweepRow> = rows.collect::<Result<_, _>>().map_err(raised)?;
            Ok(sweep_csv(&self.header.axes, &rows))
        })
    }
}

/// A folder that takes a sweep: what it has, and its journal while something is missing.
#[pyclass(frozen)]
pub(crate) struct Journal {
    journal: Mutex<Option<scenarios::Journal>>,
    there: Vec<(u64, String)>,
}

#[pymethods]
impl Journal {
    /// Looks into a folder, and takes the lock of its journal unless all is there.
    #[new]
    fn new(sweep: &Bound<'_, Sweep>, folder: &str, restart: bool) -> PyResult<Self> {
        let header = &sweep.get().header;
        let folder = Path::new(folder);
        let result = folder.join(part_name(Shard::WHOLE, "jsonl"));
        let (journal, SweepPart { rows, .. }) =
            match Left::find(folder, &result, header, restart).map_err(raised)? {
                Left::Finished(part) => (None, part),
                Left::Begun(journal, part) => (Some(journal), part),
            };
        let there = rows.iter().map(|row| (row.point, sweep_line(row))).collect();
        Ok(Self { journal: Mutex::new(journal), there })
    }

    /// Points that are there, with their lines.
    #[getter]
    fn there(&self) -> Vec<(u64, String)> {
        self.there.clone()
    }

    /// Whether the folder has the finished result.
    #[getter]
    fn finished(&self) -> bool {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Appends lines.
    fn append(&self, py: Python<'_>, lines: Vec<String>) -> PyResult<()> {
        py.detach(|| match &*self.journal.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(journal) => journal.append(&lines.concat()).map_err(raised),
            None => Err(raised("the sweep is finished")),
        })
    }

    /// Gives the lock up; `done` says that the results are there, and removes the journal.
    fn close(&self, done: bool) -> PyResult<()> {
        match self.journal.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(journal) if done => journal.remove().map_err(raised),
            _ => Ok(()),
        }
    }
}
