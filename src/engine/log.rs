//! The server's own output in a file that can't fill the disk.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Bytes kept from the start of the output.
const HEAD: u64 = 16 << 20;

/// Bytes kept from its end.
const TAIL: usize = 1 << 20;

/// A log file that keeps the first 16 MiB and the last 1 MiB of what is written, and says what it left out.
pub(super) struct BoundedLog {
    file: File,
    head_left: u64,
    tail: VecDeque<u8>,
    left_out: u64,
}

impl BoundedLog {
    /// Creates the file, or empties the one that is there.
    pub fn create(path: &Path) -> io::Result<BoundedLog> {
        Ok(BoundedLog {
            file: File::create(path)?,
            head_left: HEAD,
            tail: VecDeque::new(),
            left_out: 0,
        })
    }

    /// Writes what was kept of the end.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.left_out > 0 {
            writeln!(
                self.file,
                "\n[loadtest left out {} bytes of output here]",
                self.left_out
            )?;
        }
        let (first, second) = self.tail.as_slices();
        self.file.write_all(first)?;
        self.file.write_all(second)?;
        self.tail.clear();
        self.left_out = 0;
        Ok(())
    }
}

impl Write for BoundedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let head = bytes
            .len()
            .min(usize::try_from(self.head_left).unwrap_or(usize::MAX));
        self.file.write_all(&bytes[..head])?;
        self.head_left -= head as u64;
        let rest = &bytes[head..];
        let overflow = (self.tail.len() + rest.len()).saturating_sub(TAIL);
        let from_tail = overflow.min(self.tail.len());
        self.tail.drain(..from_tail);
        self.tail.extend(&rest[overflow - from_tail..]);
        self.left_out += overflow as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The last `lines` lines of a log file; empty if it can't be read.
pub fn tail(path: &Path, lines: usize) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(64 << 10)))?;
        let mut bytes = Vec::new();
        file.take(64 << 10).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(chunks: &[Vec<u8>], head: u64) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.log");
        let mut log = BoundedLog::create(&path).unwrap();
        log.head_left = head;
        for chunk in chunks {
            log.write_all(chunk).unwrap();
        }
        log.finish().unwrap();
        std::fs::read(path).unwrap()
    }

    proptest! {
        #[test]
        fn short_output_is_kept_whole(chunks: Vec<Vec<u8>>, head in 0u64..200) {
            prop_assert_eq!(written(&chunks, head), chunks.concat());
        }
    }

    #[test]
    fn of_long_output_the_head_and_the_tail_are_kept() {
        let chunks: Vec<Vec<u8>> = (0..40_000)
            .map(|n| format!("line {n:060}\n").into_bytes())
            .collect();
        let all = chunks.concat();
        let kept = written(&chunks, 1000);
        assert!(kept.starts_with(&all[..1000]));
        assert!(kept.ends_with(&all[all.len() - TAIL..]));
        let said = format!("left out {} bytes", all.len() - TAIL - 1000);
        assert!(kept.windows(said.len()).any(|window| window == said.as_bytes()));
    }

    #[test]
    fn tail_gives_the_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.log");
        std::fs::write(&path, "a\nb\nc\n").unwrap();
        assert_eq!(tail(&path, 2), "b\nc");
        assert_eq!(tail(&dir.path().join("none"), 2), "");
    }
}
