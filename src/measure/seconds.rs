//! `timeline.csv`, read back by the names of its columns: a file of an older or newer version is read as well.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The rows of one step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepRows {
    /// Start of each row's second, since the start of the run.
    pub second: Vec<u64>,
    /// Every column of numbers by its name, a value for each row; nothing where the cell is empty.
    pub columns: BTreeMap<String, Vec<Option<f64>>>,
}

impl StepRows {
    /// A column's values, where it has any.
    pub fn column(&self, name: &str) -> Option<&[Option<f64>]> {
        let column = self.columns.get(name)?;
        column.iter().any(Option::is_some).then_some(column.as_slice())
    }
}

/// Reads the file: its rows by number of the step. A row that cannot be read, such as one that a crash cut off, is left
/// out.
///
/// # Errors
/// When the file cannot be read, or has no columns `step` and `second`.
pub fn read(path: &Path) -> io::Result<BTreeMap<u16, StepRows>> {
    let mut reader = csv::Reader::from_path(path)?;
    let head = reader.headers()?.clone();
    let place = |name: &str| {
        head.iter().position(|column| column == name).ok_or_else(|| {
            let message = format!("no column `{name}`");
            io::Error::new(io::ErrorKind::InvalidData, message)
        })
    };
    let (step_at, second_at) = (place("step")?, place("second")?);
    let mut steps: BTreeMap<u16, StepRows> = BTreeMap::new();
    for row in reader.records().flatten() {
        let number = |at: usize| row.get(at).and_then(|cell| cell.parse::<u64>().ok());
        let (Some(step), Some(second)) = (number(step_at), number(second_at)) else {
            continue;
        };
        let Ok(step) = u16::try_from(step) else { continue };
        let rows = steps.entry(step).or_default();
        rows.second.push(second);
        for (at, name) in head.iter().enumerate() {
            if ["engine", "step", "second"].contains(&name) {
                continue;
            }
            let value = row.get(at).and_then(|cell| cell.parse().ok());
            match rows.columns.get_mut(name) {
                Some(column) => column.push(value),
                None => drop(rows.columns.insert(name.to_owned(), vec![value])),
            }
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_by_name_and_a_cut_row_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timeline.csv");
        let text = "engine,step,second,output_tps,new_one\na,0,3,10,\na,0,4,,\nb,2,9,1.5,7\nb,2,1";
        std::fs::write(&path, text).unwrap();
        let steps = read(&path).unwrap();
        assert_eq!(steps[&0].second, [3, 4]);
        assert_eq!(steps[&0].column("output_tps"), Some(&[Some(10.0), None][..]));
        assert_eq!(steps[&0].column("new_one"), None);
        assert_eq!(steps[&2].column("new_one"), Some(&[Some(7.0)][..]));
        std::fs::write(&path, "a,b\n1,2\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("no column `step`"));
    }
}
