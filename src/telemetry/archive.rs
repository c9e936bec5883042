//! A server's pages of metrics, kept as they came in a file that can't fill the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// Up to this size of the file, every page is kept.
const ALL_BELOW: u64 = 32 << 20;

/// From there to this size, one in [`THINNED`]; from this size on, none.
const NONE_ABOVE: u64 = 64 << 20;

/// A page a minute, where they come once a second.
const THINNED: u64 = 60;

/// A gzip file of text. Each page stands below a comment line of its time; what was written so far can be read at any
/// time, also after a crash.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    /// Open from the first page on: a server that tells nothing leaves no file.
    file: Option<GzEncoder<File>>,
    /// Goes into the comment line.
    about: String,
    offered: u64,
}

impl Archive {
    /// The file at `path`; pages are added to what it has. `about` says what they belong to, in a word or two.
    pub fn append(path: PathBuf, about: String) -> Archive {
        Archive {
            path,
            file: None,
            about,
            offered: 0,
        }
    }

    /// Adds a page, unless the file has grown too large.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&mut self, page: &str, at_ns: u64) -> io::Result<()> {
        let size = size(&self.path);
        let wanted = size < ALL_BELOW || (size < NONE_ABOVE && self.offered.is_multiple_of(THINNED));
        self.offered += 1;
        if !wanted {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
                self.file.insert(GzEncoder::new(file, Compression::fast()))
            }
        };
        writeln!(
            file,
            "# loadtest: {}, {}.{:03} s after the run's start",
            self.about,
            at_ns / 1_000_000_000,
            at_ns / 1_000_000 % 1_000
        )?;
        file.write_all(page.as_bytes())?;
        if !page.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        file.flush()
    }
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::MultiGzDecoder;

    use super::*;

    fn text(path: &Path) -> String {
        let mut text = String::new();
        MultiGzDecoder::new(File::open(path).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        text
    }

    #[test]
    fn pages_of_two_steps_are_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.txt.gz");
        let mut first = Archive::append(path.clone(), "step 0".into());
        assert!(!path.exists());
        first.keep("up 1\n", 1_500_000_000).unwrap();
        first.keep("up 2", 2_000_400_000).unwrap();
        drop(first);
        let mut second = Archive::append(path.clone(), "step 1".into());
        second.keep("up 3\n", 9_000_000_000).unwrap();
        drop(second);
        let wanted = "# loadtest: step 0, 1.500 s after the run's start\nup 1\n\
             # loadtest: step 0, 2.000 s after the run's start\nup 2\n\
             # loadtest: step 1, 9.000 s after the run's start\nup 3\n";
        assert_eq!(text(&path), wanted);
    }

    #[test]
    fn what_was_written_can_be_read_before_the_file_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.txt.gz");
        let mut archive = Archive::append(path.clone(), "step 0".into());
        archive.keep("up 1\n", 0).unwrap();
        let mut text = Vec::new();
        let cut_short = MultiGzDecoder::new(File::open(&path).unwrap()).read_to_end(&mut text);
        assert!(cut_short.is_err() && text.ends_with(b"up 1\n"));
    }

    #[test]
    fn a_large_file_takes_one_page_in_sixty_and_a_full_one_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.txt.gz");
        let kept = |size: u64| {
            File::create(&path).unwrap().set_len(size).unwrap();
            let mut archive = Archive::append(path.clone(), "step 0".into());
            let mut kept = 0;
            for second in 0..120 {
                let before = super::size(&path);
                archive.keep("up 1\n", second).unwrap();
                kept += u32::from(super::size(&path) > before);
            }
            kept
        };
        assert_eq!([kept(0), kept(ALL_BELOW), kept(NONE_ABOVE)], [120, 2, 0]);
    }
}
