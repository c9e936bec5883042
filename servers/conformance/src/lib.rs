//! What every engine behind the shell must do, as tests that each engine's package calls.
//!
//! [`sequences`] checks steps on [`tiny`] random models, [`agreement`] logits and greedy choices against llama.cpp's on
//! a real one, [`server`] the program around the engine; [`speed`] measures. Everything here panics where an engine
//! does not do what it must.

pub mod agreement;
pub mod sequences;
pub mod server;
pub mod speed;
pub mod tiny;

use std::path::PathBuf;

/// The file of a model whose name begins with `name`, from `LOADTEST_TEST_MODELS` or the cache.
///
/// # Panics
/// If it isn't on this machine; the message says how to get it.
pub fn model(name: &str) -> PathBuf {
    let folder = match std::env::var_os("LOADTEST_TEST_MODELS") {
        Some(folder) => PathBuf::from(folder),
        None => dirs::cache_dir().unwrap_or_default().join("loadtest/models"),
    };
    let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let found = files.map(|entry| entry.path()).find(|file| {
        let file_name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        file_name.starts_with(name) && file_name.ends_with(".gguf")
    });
    found.unwrap_or_else(|| {
        panic!(
            "{name} is not in {}: `loadtest models fetch {name}` gets it",
            folder.display()
        )
    })
}
