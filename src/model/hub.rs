//! The Hugging Face hub as a source.

use super::Progress;
use super::registry::HubFile;
use hf_hub::Cache;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// Without a network, a connection attempt can hang for minutes; the other sources should get their turn before.
const FIRST_REPLY: Duration = Duration::from_secs(8);
/// A download of which nothing arrives for this long is given up; it resumes where it stopped.
const STALL: Duration = Duration::from_secs(60);

/// How the hub is reached.
#[derive(Debug, Clone)]
pub struct Hub {
    /// The hub's own cache folder, shared with other programs.
    pub cache: PathBuf,
    /// The hub's address.
    pub endpoint: String,
    /// Token for gated models.
    pub token: Option<String>,
    /// Whether to use the hub's cache only.
    pub offline: bool,
}

impl Hub {
    /// As `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` say.
    pub fn from_env() -> Self {
        let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let cache = Cache::from_env();
        let offline = text("HF_HUB_OFFLINE")
            .is_some_and(|value| !["0", "false", "no", "off"].contains(&&*value.to_lowercase()));
        Self {
            token: text("HF_TOKEN").or_else(|| cache.token()),
            cache: cache.path().clone(),
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned()),
            offline,
        }
    }

    /// The file in the hub's cache, if it is there.
    pub(super) fn cached(&self, wanted: &HubFile) -> Option<PathBuf> {
        Cache::new(self.cache.clone())
            .model(wanted.repo.clone())
            .get(&wanted.file)
    }

    /// The names of the files of `repo`.
    pub(super) fn files(&self, repo: &str) -> Result<Vec<String>, String> {
        let api = self.api()?;
        let repo = api.model(repo.to_owned());
        let (events, received) = mpsc::channel();
        std::thread::spawn(move || events.send(repo.info()));
        let info = received
            .recv_timeout(FIRST_REPLY)
            .map_err(|_| self.no_reply())?
            .map_err(|e| e.to_string())?;
        Ok(info.siblings.into_iter().map(|file| file.rfilename).collect())
    }

    /// Downloads the file to the hub's cache, resuming what an earlier attempt left there. Before that, a checksum
    /// known to be `expected` is compared with the one that the hub tells.
    pub(super) fn fetch(
        &self,
        wanted: &HubFile,
        expected: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<PathBuf, String> {
        let api = self.api()?;
        progress.note(&format!(
            "asking {} for {}/{}",
            self.endpoint, wanted.repo, wanted.file
        ));
        let (events, received) = mpsc::channel();
        let (file, expected) = (wanted.clone(), expected.map(str::to_owned));
        // A thread of its own, as the hub's client knows no timeouts: one that hangs is left behind.
        std::thread::spawn(move || {
            let done = download(&api, &file, expected.as_deref(), &events);
            // Nobody listens any more after a stall.
            let _ = events.send(Event::Done(done));
        });
        self.follow(&received, &wanted.file, progress)
    }

    fn follow(
        &self,
        events: &Receiver<Event>,
        label: &str,
        progress: &dyn Progress,
    ) -> Result<PathBuf, String> {
        let mut patience = FIRST_REPLY;
        let mut begun = false;
        let result = loop {
            match events.recv_timeout(patience) {
                Ok(Event::Size(bytes)) if !begun => {
                    progress.begin(label, Some(bytes));
                    begun = true;
                    patience = STALL;
                }
                Ok(Event::Size(_)) => {}
                Ok(Event::Got(bytes)) => progress.advance(bytes),
                Ok(Event::Done(result)) => break result,
                Err(RecvTimeoutError::Timeout) if begun => {
                    break Err(format!(
                        "nothing arrived for {} s; the next attempt resumes",
                        STALL.as_secs()
                    ));
                }
                Err(RecvTimeoutError::Timeout) => break Err(self.no_reply()),
                Err(RecvTimeoutError::Disconnected) => break Err("the hub's answer made no sense".to_owned()),
            }
        };
        if begun {
            progress.finish();
        }
        result
    }

    fn api(&self) -> Result<Api, String> {
        if self.offline {
            return Err("HF_HUB_OFFLINE is set, and its cache does not have the file".to_owned());
        }
        let builder = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.trim_end_matches('/').to_owned())
            .with_token(self.token.clone())
            .with_user_agent("loadtest", env!("CARGO_PKG_VERSION"));
        builder.build().map_err(|e| e.to_string())
    }

    fn no_reply(&self) -> String {
        format!(
            "{} did not answer within {} s",
            self.endpoint,
            FIRST_REPLY.as_secs()
        )
    }
}

/// The checksum of a file in the hub's cache: large files are stored under their SHA-256.
pub(super) fn stored_sha256(path: &Path) -> Option<String> {
    let blob = path.canonicalize().ok()?;
    let name = blob.file_name()?.to_str()?;
    is_sha256(name).then(|| name.to_owned())
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

enum Event {
    Size(u64),
    Got(u64),
    Done(Result<PathBuf, String>),
}

fn download(
    api: &Api,
    wanted: &HubFile,
    expected: Option<&str>,
    events: &Sender<Event>,
) -> Result<PathBuf, String> {
    let repo = api.model(wanted.repo.clone());
    let metadata = api.metadata(&repo.url(&wanted.file)).map_err(|e| explain(&e))?;
    if let Some(expected) = expected
        && is_sha256(metadata.etag())
        && metadata.etag() != expected
    {
        return Err(format!(
            "the hub's file has checksum {}, not {expected}",
            metadata.etag()
        ));
    }
    repo.download_with_progress(&wanted.file, Reports(events.clone()))
        .map_err(|e| explain(&e))
}

fn explain(error: &ApiError) -> String {
    let text = error.to_string();
    match text.contains("401") || text.contains("403") {
        true => format!("{text} (a gated model? accept its licence on the hub and set HF_TOKEN)"),
        false => text,
    }
}

/// The client's progress, sent on.
struct Reports(Sender<Event>);

impl hf_hub::api::Progress for Reports {
    fn init(&mut self, size: usize, _: &str) {
        let _ = self.0.send(Event::Size(size as u64));
    }

    fn update(&mut self, size: usize) {
        let _ = self.0.send(Event::Got(size as u64));
    }

    fn finish(&mut self) {}
}
