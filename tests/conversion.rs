//! A model that an engine does not read is converted once, whole or not at all, and the result says so.
#![cfg(target_os = "linux")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use sha2::{Digest, Sha256};
use support::{House, reference_program, stderr};

/// Notes that it ran, and copies the model.
const CONVERTER: &str = "echo ran >> \"$3\"\necho reading\ncp \"$1\" \"$2/weights\"\nmkdir \"$2/more\"\n\
                         echo {} > \"$2/more/config.json\"\necho '{\"format\": \"copied\", \"bits_per_weight\": 4.5}'\n";

/// A house with an engine that reads folders alone, and a script that makes them.
struct Converting {
    house: House,
    model: PathBuf,
}

impl Converting {
    fn new(converter: &str) -> Converting {
        let house = House::new();
        let (count, program) = (house.dir.path().join("count"), reference_program());
        let serve = format!(
            "test -f $1/weights && exec '{}' --port $2 --model-name $3",
            program.display()
        );
        let recipe = format!(
            "name = 'folders'\ntitle = 'Folders'\nkind = 'spawned'\ndescription = 'x'\nformats = ['safetensors']\n\
             [find]\nprograms = ['/bin/sh']\n[convert]\nto = 'copy'\nfiles = ['convert.sh']\ntakes = 'a moment'\n\
             command = ['/bin/sh', '-e', '{{dir}}/convert.sh', '{{model}}', '{{out}}', {count:?}]\n\
             [serve]\nargs = ['-c', {serve:?}, 'folders', '{{model}}', '{{port}}', '{{model_name}}']\n\
             [ready]\npath = '/health'\n"
        );
        house.engine("folders", &recipe);
        let model = house.tiny_model();
        let converting = Converting { house, model };
        converting.converter(converter);
        converting
    }

    fn converter(&self, text: &str) {
        let folder = self.house.dir.path().join("config/loadtest/servers/folders");
        std::fs::write(folder.join("convert.sh"), text).expect("written");
    }

    fn ours(&self) -> PathBuf {
        self.house.dir.path().join("ours")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.house.command();
        command
            .env("LOADTEST_HOME", self.ours())
            .args(args)
            .arg("--model")
            .arg(&self.model);
        command
    }

    fn install(&self) -> Output {
        self.command(&["engines", "install", "folders"])
            .output()
            .expect("loadtest starts")
    }

    /// How often the converter ran.
    fn runs(&self) -> usize {
        std::fs::read_to_string(self.house.dir.path().join("count")).map_or(0, |text| text.lines().count())
    }

    /// Folders of conversions, whole or not.
    fn folders(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.ours().join("converted"))
            .into_iter()
            .flatten()
            .flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect()
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn the_first_use_converts_and_the_result_says_from_what_to_what() {
    let converting = Converting::new(CONVERTER);
    let run = |format: &str| {
        let args = [
            "--engine",
            "folders",
            "--users",
            "1",
            "--num-prompts",
            "2",
            "--osl",
            "3",
            "--isl",
            "40",
        ];
        let mut command = converting.command(&args);
        let output = command
            .args(["--no-calibrate", "--format", format])
            .output()
            .expect("loadtest starts");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        output
    };
    let first = run("json");
    let said = stderr(&first);
    assert!(
        said.contains("converting tiny.gguf to copy for Folders, once: a moment"),
        "{said}"
    );
    let summary: Value = serde_json::from_slice(&first.stdout).expect("JSON");
    let converted = &summary["engines"][0]["converted"];
    let file = sha256(&std::fs::read(&converting.model).expect("the model"));
    assert_eq!(converted["from_hash"], file.as_str());
    let model = &summary["model"];
    assert_eq!(
        (&model["path_hash"], &model["format"]),
        (&file.as_str().into(), &"gguf".into())
    );
    let listing = format!("{}  more/config.json\n{file}  weights\n", sha256(b"{}\n"));
    assert_eq!(converted["path_hash"], sha256(listing.as_bytes()).as_str());
    assert_eq!(
        (&converted["format"], &converted["bits_per_weight"]),
        (&"copied".into(), &4.5.into())
    );
    let path = Path::new(converted["path"].as_str().expect("a path"));
    assert!(path.join("weights").is_file());
    let table = String::from_utf8_lossy(&run("table").stdout).into_owned();
    assert!(
        table.contains("folders ran a conversion of the model: copied, 4.5 bits per weight"),
        "{table}"
    );
    assert_eq!(converting.runs(), 1);
}

/// Bars and what passes are drawn over; what it costs is to be read while it goes on.
#[test]
fn on_a_terminal_its_cost_stays_on_a_line_of_its_own() {
    let converting = Converting::new(CONVERTER);
    let install = converting.command(&["engines", "install", "folders"]);
    let terminal = "import os, pty, sys\nsys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let mut command = Command::new("python3");
    for (name, value) in install.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command
        .args(["-c", terminal])
        .arg(install.get_program())
        .args(install.get_args())
        .env("TERM", "xterm")
        .current_dir(converting.house.dir.path())
        .output()
        .expect("python3 starts");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    let cost = "converting tiny.gguf to copy for Folders, once: a moment";
    // What passes begins with a spinner, and its row is cleared before the next is drawn in its place.
    let stays = |drawn: &str| {
        drawn
            .strip_prefix(cost)
            .is_some_and(|more| !more.trim().is_empty())
    };
    let stayed = shown.split("\u{1b}[2K").filter(|drawn| stays(drawn));
    assert_eq!(stayed.count(), 1, "{shown:?}");
}

#[test]
fn a_changed_converter_converts_again() {
    let converting = Converting::new(CONVERTER);
    for _ in 0..2 {
        assert!(converting.install().status.success());
    }
    assert_eq!(converting.runs(), 1);
    converting.converter(&format!("{CONVERTER}# better\n"));
    assert!(converting.install().status.success());
    assert_eq!((converting.runs(), converting.folders().len()), (2, 2));
}

#[test]
fn a_conversion_that_fails_shows_its_log_and_leaves_nothing() {
    let converting =
        Converting::new("echo half > \"$2/weights\"\necho reading\necho 'no such tensor' >&2\nexit 3\n");
    let failed = converting.install();
    assert_eq!(failed.status.code(), Some(1));
    let said = stderr(&failed);
    assert!(
        said.contains("reading") && said.contains("no such tensor") && said.contains("convert.sh"),
        "{said}"
    );
    assert_eq!(converting.folders(), Vec::<PathBuf>::new());
    converting.converter(CONVERTER);
    assert!(converting.install().status.success());
}

#[test]
fn what_a_killed_conversion_left_is_done_again() {
    let converting = Converting::new(CONVERTER);
    assert!(converting.install().status.success());
    let whole = converting.folders().remove(0);
    let part = whole.with_file_name(format!("{}.part", whole.file_name().expect("a name").display()));
    std::fs::rename(&whole, &part).expect("renamed");
    std::fs::write(part.join("model/strange"), "x").expect("written");
    assert!(converting.install().status.success());
    assert_eq!(
        (converting.runs(), converting.folders()),
        (2, vec![whole.clone()])
    );
    assert!(!whole.join("model/strange").exists());
}

#[test]
fn two_who_need_one_conversion_make_it_once() {
    let converting = Converting::new(CONVERTER);
    let both: Vec<_> = (0..2)
        .map(|_| {
            converting
                .command(&["engines", "install", "folders"])
                .spawn()
                .expect("loadtest starts")
        })
        .collect();
    for mut one in both {
        assert!(one.wait().expect("it ends").success());
    }
    assert_eq!(converting.runs(), 1);
}
