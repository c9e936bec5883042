//! A server's life: started on a free port, ready when its model answers, stopped with everything it started.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::reason;
use super::prepare::{Commands, Preparation};
use super::probe::{Answer, Control, Page};
use super::process::{Exit, Launch, Process};
use super::recipe::Recipe;
use super::settings::{Effective, Settings};
use super::{EngineError, Program, Progress, log};
use crate::telemetry::Root;

/// Time between two looks at whether the model answers.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// At most this long between two words about the progress.
const SPEAK_EVERY: Duration = Duration::from_secs(1);

/// How often a server is started again because someone else took its port first.
const PORT_TRIES: u32 = 3;

/// Characters of the server's last line in a word about the progress.
const SHOWN_WORDS: usize = 80;

/// Lines of the log in an error.
const LOG_LINES: usize = 50;

/// How long a server took from the start of its process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Until its own page said that it is up; `None` where it has no such page.
    pub ready: Option<Duration>,
    /// Until its model answered with a token.
    pub first_token: Duration,
}

/// A server whose model answers. Dropping it ends the server, if we started it, and waits for that.
pub struct Running {
    engine: String,
    base_url: String,
    model_name: String,
    version: Option<String>,
    load: Option<Load>,
    effective: Effective,
    process: Option<Process>,
}

impl Running {
    /// The engine's name.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// Its address without a trailing slash, as this machine reaches it: `http://127.0.0.1:PORT`.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// What requests call the model.
    pub fn model_name(&self) -> &str {
        &self.model_name
    }

    /// The engine's version: as the program told before it was started, else as the server tells.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref().or(self.effective.version.as_deref())
    }

    /// How long it took to load; `None` if it ran already.
    pub fn load(&self) -> Option<Load> {
        self.load
    }

    /// The settings that it says it uses.
    pub fn effective(&self) -> &Effective {
        &self.effective
    }

    /// The server's process id, if we started it.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// All processes of the server, for [`telemetry`](crate::telemetry::Watch).
    pub fn processes(&self) -> Option<Root> {
        // Elsewhere what a server detaches does not come back to the guard.
        let root = |process: &Process| match cfg!(target_os = "linux") {
            true => Root::Below(process.guard_pid()),
            false => Root::Tree(process.pid()),
        };
        self.process.as_ref().map(root)
    }

    /// Whether its process has ended. A server that ran already never has.
    pub fn is_dead(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_dead)
    }

    /// How it ended, once all that it started is gone.
    pub fn exit(&self) -> Option<Exit> {
        self.process.as_ref().and_then(Process::exit)
    }

    /// Waits until the server ends by itself; for a server that ran already, for ever.
    pub async fn died(&self) -> Exit {
        match &self.process {
            Some(process) => process.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Ends the server and everything it started (SIGTERM, the recipe's grace, SIGKILL) and returns when all of it is
    /// gone; `None` for a server that ran already, which is left alone.
    pub async fn stop(self) -> Option<Exit> {
        match &self.process {
            Some(process) => Some(process.stop().await),
            None => None,
        }
    }
}

/// Starts the engine's server and waits until its model answers with a token.
///
/// # Errors
/// The server can't be started, dies while loading, never gets ready, or refuses. Nothing is left running then.
pub async fn start(
    recipe: &Recipe,
    program: &Program,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<Running, EngineError> {
    told_all(recipe, settings)?;
    settings.readable_by(recipe)?;
    let mut tries = 0;
    loop {
        tries += 1;
        let port = free_port(recipe, settings)?;
        match start_on(recipe, program, settings, port, progress).await {
            Err(EngineError::Died { .. })
                if tries < PORT_TRIES && settings.port.is_none() && taken(settings.host, port) =>
            {
                progress.status(&format!(
                    "{}: port {port} was taken meanwhile; trying another",
                    recipe.name
                ));
            }
            other => return other,
        }
    }
}

/// Refuses a setting that the recipe has no way to pass on.
fn told_all(recipe: &Recipe, settings: &Settings) -> Result<(), EngineError> {
    let takes = |placeholder: &str, more: &[String]| {
        !more.is_empty() || recipe.serve.args.iter().any(|word| word.contains(placeholder))
    };
    let (weights, device) = (&recipe.serve.weights_args, &recipe.serve.device_args);
    let words = recipe.serve.args.iter().chain(recipe.serve.env.values());
    let takes_host = words
        .chain(recipe.serve.files.values())
        .any(|word| word.contains("{host}"));
    let untold = match (&settings.weights, &settings.device) {
        _ if settings.host != Ipv4Addr::LOCALHOST && !takes_host => ("the address to listen on", "{host}"),
        (Some(_), _) if !takes("{weights}", weights) => ("the form of its weights", "serve.weights_args"),
        (_, Some(_)) if !takes("{device}", device) => ("its device", "serve.device_args"),
        _ => return Ok(()),
    };
    Err(EngineError::Unsupported {
        engine: recipe.name.clone(),
        what: untold.0,
        key: untold.1,
    })
}

/// A port of the server's address that nobody listens on: the one wanted, or any.
fn free_port(recipe: &Recipe, settings: &Settings) -> Result<u16, EngineError> {
    let (host, wanted) = (settings.host, settings.port);
    let bound = TcpListener::bind((host, wanted.unwrap_or(0)));
    match (bound.and_then(|listener| listener.local_addr()), wanted) {
        (Ok(address), _) => Ok(address.port()),
        (Err(error), Some(port)) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Err(EngineError::PortInUse {
                engine: recipe.name.clone(),
                port,
            })
        }
        (Err(error), _) => Err(EngineError::io(format!("cannot get a port on {host}"))(error)),
    }
}

fn taken(host: Ipv4Addr, port: u16) -> bool {
    TcpListener::bind((host, port)).is_err()
}

async fn start_on(
    recipe: &Recipe,
    program: &Program,
    settings: &Settings,
    port: u16,
    progress: &dyn Progress,
) -> Result<Running, EngineError> {
    let commands = Commands::new(recipe, program, settings, port)?;
    let launch = Launch {
        argv: commands.serve,
        env: commands.env.clone(),
        log: &settings.log,
        cpus: settings.cpus.clone(),
        grace: recipe.ready.stop_grace(),
        guard: &settings.guard,
    };
    let started = Instant::now();
    let name = program
        .argv
        .first()
        .map_or_else(String::new, |path| path.to_string_lossy().into_owned());
    let process =
        Process::start(launch).map_err(EngineError::io(format!("cannot start {} ({name})", recipe.name)))?;
    let base_url = format!("http://{}:{port}", settings.reached_at());
    let control = control(&base_url, None)?;
    let told = commands.prepare.into_iter().map(|argv| Preparation {
        argv,
        env: &commands.env,
    });
    let up = ready(
        recipe,
        settings,
        &process,
        (&control, &base_url),
        told.collect(),
        (progress, started),
    )
    .await;
    let (model_name, load) = match up {
        Ok(up) => up,
        Err(error) => {
            process.stop().await;
            return Err(error);
        }
    };
    let effective = effective(&control, recipe).await;
    Ok(Running {
        engine: recipe.name.clone(),
        base_url,
        model_name,
        version: program.version.clone(),
        load: Some(load),
        effective,
        process: Some(process),
    })
}

/// Waits until the model answers, the process ends, or the time is up. Returns what requests call the model, and how
/// long it took since the process `started`.
async fn ready(
    recipe: &Recipe,
    settings: &Settings,
    process: &Process,
    (control, url): (&Control, &str),
    preparations: Vec<Preparation<'_>>,
    (progress, started): (&dyn Progress, Instant),
) -> Result<(String, Load), EngineError> {
    let engine = || recipe.name.clone();
    let after = settings.ready_timeout.unwrap_or(recipe.ready.timeout());
    let last = Mutex::new(String::from("it was not asked yet"));
    let asking = async {
        while let Page::NotYet(why) = control.up(&recipe.ready).await {
            drop(set(&last, why));
            tokio::time::sleep(ASK_EVERY).await;
        }
        let ready = recipe.ready.path.is_some().then(|| started.elapsed());
        for preparation in preparations {
            drop(set(&last, format!("`{}` has not ended", preparation.command())));
            preparation.run(&recipe.name).await?;
        }
        drop(set(&last, "a request for one token has no answer yet".into()));
        loop {
            match control
                .answers(recipe, &settings.asked_for(recipe), settings.sampling)
                .await
            {
                Answer::Ready(name) => {
                    let first_token = started.elapsed();
                    return Ok((name, Load { ready, first_token }));
                }
                Answer::Refused(status, body) => {
                    return Err(EngineError::Refused {
                        engine: engine(),
                        url: url.into(),
                        status,
                        body,
                    });
                }
                Answer::NotYet(why) => drop(set(&last, why)),
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    let speaking = async {
        loop {
            progress.status(&loading(&recipe.name, after, &log::tail(&settings.log, 1)));
            tokio::time::sleep(SPEAK_EVERY).await;
        }
    };
    tokio::select! {
        // An end comes first: whoever answers at the port of a dead server is someone else.
        biased;
        exit = process.ended() => {
            Err(EngineError::Died { engine: engine(), exit: Box::new(exit), log: settings.log.clone() })
        }
        answer = asking => answer,
        () = tokio::time::sleep(after) => {
            let last = set(&last, String::new());
            // Stopped first, so that the log is complete.
            process.stop().await;
            let log_tail = log::tail(&settings.log, LOG_LINES);
            Err(EngineError::NeverReady { engine: engine(), after, last, log: settings.log.clone(), log_tail })
        }
        () = speaking => unreachable!("the speaker never ends"),
    }
}

/// How the loading goes, in the server's own last words: it may take many minutes.
fn loading(engine: &str, after: Duration, last_line: &str) -> String {
    // A progress bar of the server's overwrites its line.
    let shown = last_line.rsplit('\r').find(|part| !part.trim().is_empty());
    let words: String = shown
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(SHOWN_WORDS)
        .collect();
    let words = match words.trim() {
        "" => String::new(),
        words => format!("; it says: {words}"),
    };
    format!("{engine}: loading, at most {} s{words}", after.as_secs())
}

/// Replaces the note, and gives back what it was.
fn set(note: &Mutex<String>, to: String) -> String {
    std::mem::replace(&mut note.lock().unwrap_or_else(PoisonError::into_inner), to)
}

/// The settings that the server tells, or that it is known to have.
async fn effective(control: &Control, recipe: &Recipe) -> Effective {
    let told = match &recipe.effective {
        Some(how) => control.effective(how).await,
        None => Effective::default(),
    };
    Effective {
        parallel: told.parallel.or(recipe.fixed.parallel),
        ..told
    }
}

fn control(url: &str, api_key: Option<String>) -> Result<Control, EngineError> {
    Control::new(url, api_key).map_err(|error| EngineError::Unreachable {
        url: url.into(),
        reason: reason(&error),
    })
}

/// Attaches to a server that runs already. Without a `model_name`, it is the first model that the server lists.
///
/// # Errors
/// Nothing answers at the address, or the server lists no model and none was named.
pub async fn attach(
    recipe: &Recipe,
    url: &str,
    model_name: Option<String>,
    api_key: Option<String>,
) -> Result<Running, EngineError> {
    let base_url = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
    let unreachable = |reason| EngineError::Unreachable {
        url: base_url.clone(),
        reason,
    };
    let control = control(&base_url, api_key)?;
    let listed = control.models().await;
    let model_name = match (model_name, listed) {
        // At its usual address an engine answers to the names that it lists; elsewhere a server need not list any.
        (Some(model), Ok(names)) if recipe.url.is_some() && !names.is_empty() && !names.contains(&model) => {
            return Err(EngineError::NoSuchModel {
                engine: recipe.name.clone(),
                url: base_url,
                model,
                listed: names.join(", "),
            });
        }
        // A server need not list its models, but something must answer.
        (Some(_), Err(error)) if error.is_connect() || error.is_timeout() || error.is_builder() => {
            return Err(unreachable(reason(&error)));
        }
        (Some(name), _) => name,
        (None, Ok(names)) => {
            let first = names.into_iter().next();
            first.ok_or_else(|| unreachable("it lists no model; name one with --model".into()))?
        }
        (None, Err(error)) => {
            return Err(unreachable(format!(
                "{}; name a model with --model if it lists none",
                reason(&error)
            )));
        }
    };
    let effective = effective(&control, recipe).await;
    Ok(Running {
        engine: recipe.name.clone(),
        base_url,
        model_name,
        version: None,
        load: None,
        effective,
        process: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loading_is_told_in_the_servers_own_words() {
        let after = Duration::from_secs(1800);
        assert_eq!(loading("vllm", after, ""), "vllm: loading, at most 1800 s");
        let bar = "Loading shards:  30% | 3/10\rLoading shards:  40% | 4/10\u{7}\r";
        assert_eq!(
            loading("vllm", after, bar),
            "vllm: loading, at most 1800 s; it says: Loading shards:  40% | 4/10"
        );
        assert!(loading("vllm", after, &"x".repeat(500)).ends_with(&"x".repeat(SHOWN_WORDS)));
    }
}
