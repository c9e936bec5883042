//! One running `backend` of lm.rs.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

/// How long it may take to listen; it loads the model later.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two tries to reach one that has just been started.
const TRY_EVERY: Duration = Duration::from_millis(5);

/// How long its end may lag behind that of its connections.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// How often one is started again because another program took its port first.
const PORT_TRIES: u32 = 3;

/// What it is started with, whatever is asked of it.
#[derive(Debug)]
pub struct Program {
    pub path: PathBuf,
    pub model: PathBuf,
    pub tokenizer: PathBuf,
    /// Threads that compute.
    pub threads: usize,
}

/// What it takes at its start only, and requests want.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    pub temperature: f32,
    pub top_p: f32,
}

/// A process that listens. Dropping it ends it.
#[derive(Debug)]
pub struct Backend {
    pub sampling: Sampling,
    address: SocketAddr,
    child: Mutex<Child>,
}

impl Backend {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// It can't be started, ends at once, or does not listen in time.
    pub async fn start(program: &Program, sampling: Sampling) -> anyhow::Result<Backend> {
        let mut tries = 1;
        loop {
            match Backend::start_once(program, sampling).await {
                Err(Started::Ended(..)) if tries < PORT_TRIES => tries += 1,
                Err(Started::Ended(status)) => {
                    anyhow::bail!("lm.rs ended at its start, {status}; what it said stands in this log")
                }
                Err(Started::Not(error)) => return Err(error),
                Ok(backend) => return Ok(backend),
            }
        }
    }

    async fn start_once(program: &Program, sampling: Sampling) -> Result<Backend, Started> {
        let address = free_port().await.context("no port is free")?;
        let mut child = command(program, sampling, address)
            .spawn()
            .with_context(|| format!("cannot start {}", program.path.display()))?;
        let listening = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(TRY_EVERY).await;
            }
        };
        tokio::select! {
            // Whoever answers at the port of a dead process is someone else.
            biased;
            status = child.wait() => Err(Started::Ended(status.context("cannot wait for lm.rs")?)),
            () = listening => Ok(Backend { sampling, address, child: Mutex::new(child) }),
            () = tokio::time::sleep(PATIENCE) => {
                let error = anyhow::anyhow!("lm.rs does not listen {} s after its start", PATIENCE.as_secs());
                Err(error.into())
            }
        }
    }

    /// A new connection to it.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// How it ended, if it did: waits a moment for the end of one whose connection broke.
    pub async fn ended(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock().await;
        let waited = tokio::time::timeout(LAST_BREATH, child.wait()).await;
        waited.ok()?.ok()
    }
}

/// Why there is no backend.
enum Started {
    /// It ended before it listened.
    Ended(ExitStatus),
    /// It was not to be started.
    Not(anyhow::Error),
}

impl From<anyhow::Error> for Started {
    fn from(error: anyhow::Error) -> Started {
        Started::Not(error)
    }
}

fn command(program: &Program, sampling: Sampling, address: SocketAddr) -> Command {
    let mut command = Command::new(&program.path);
    command
        .arg("--ip")
        .arg(address.ip().to_string())
        .arg("--port")
        .arg(address.port().to_string())
        .arg("--model")
        .arg(&program.model)
        .arg("--tokenizer")
        .arg(&program.tokenizer)
        .arg("--temperature")
        .arg(sampling.temperature.to_string())
        .arg("--top-p")
        .arg(sampling.top_p.to_string())
        .env("RAYON_NUM_THREADS", program.threads.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    #[cfg(target_os = "linux")]
    // SAFETY: prctl(PR_SET_PDEATHSIG) takes a signal number, touches no memory, and may be called after a fork.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command
}

async fn free_port() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()
}
