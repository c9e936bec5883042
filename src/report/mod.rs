//! Showing it: tables, files and live progress.
