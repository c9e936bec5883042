//! Which processors the client and the server get when they share a machine.
//!
//! What the user names holds. If only one side is named, the other gets the rest. If none is, a machine with more than
//! four processors is shared out: one for each thread of the load, at most a quarter of them, and the rest for the server.
//! On fewer, nobody is confined: a processor that idles costs more than one that is shared.

use super::Usage;
use crate::profile::{Cpus, Profile};
use crate::telemetry::affinity;

/// Up to so many processors nobody is confined unasked.
const FEW: usize = 4;

/// Who may run where; absent: anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cores {
    /// The threads that make the load.
    pub client: Option<Cpus>,
    /// The server's processes.
    pub server: Option<Cpus>,
}

impl Cores {
    /// What the profile asks for, on this machine, for a load of so many threads.
    ///
    /// # Errors
    /// [`Usage`] if this machine does not have the processors, or cannot confine anyone to them.
    pub fn of(profile: &Profile, threads: usize) -> Result<Cores, Usage> {
        share(profile, threads, affinity::of(0).as_deref())
    }
}

/// The processors named by `--server-cpus`, which this machine must have.
///
/// # Errors
/// [`Usage`] if it has not, or cannot confine anyone to them.
pub fn server_cpus(named: Option<&Cpus>) -> Result<Option<Vec<usize>>, Usage> {
    let Some(cpus) = named else { return Ok(None) };
    check("--server-cpus", cpus, affinity::of(0).as_deref())?;
    Ok(Some(cpus.list().to_vec()))
}

fn share(profile: &Profile, threads: usize, allowed: Option<&[usize]>) -> Result<Cores, Usage> {
    let (client, server) = (&profile.client_cpus, &profile.server.server_cpus);
    for (flag, cpus) in [("--client-cpus", client), ("--server-cpus", server)] {
        if let Some(cpus) = cpus {
            check(flag, cpus, allowed)?;
        }
    }
    let Some(allowed) = allowed else {
        return Ok(Cores::default());
    };
    if profile.url.is_some() {
        return Ok(Cores {
            client: client.clone(),
            server: None,
        });
    }
    Ok(match (client, server) {
        (Some(client), Some(server)) => Cores {
            client: Some(client.clone()),
            server: Some(server.clone()),
        },
        (Some(client), None) => Cores {
            client: Some(client.clone()),
            server: client.others(allowed),
        },
        (None, Some(server)) => Cores {
            client: server.others(allowed),
            server: Some(server.clone()),
        },
        (None, None) if allowed.len() > FEW => {
            let ours = threads.clamp(1, allowed.len() / 4);
            let (server, client) = allowed.split_at(allowed.len() - ours);
            Cores {
                client: Cpus::new(client.to_vec()),
                server: Cpus::new(server.to_vec()),
            }
        }
        (None, None) => Cores::default(),
    })
}

fn check(flag: &str, cpus: &Cpus, allowed: Option<&[usize]>) -> Result<(), Usage> {
    let Some(allowed) = allowed else {
        return Err(Usage(anyhow::anyhow!(
            "{flag} {cpus}: only Linux confines processes to processors; leave it out here"
        )));
    };
    match cpus.list().iter().find(|cpu| !allowed.contains(cpu)) {
        None => Ok(()),
        Some(cpu) => {
            let there = Cpus::new(allowed.to_vec()).map_or_else(String::new, |all| all.to_string());
            Err(Usage(anyhow::anyhow!(
                "{flag} {cpus}: there is no processor {cpu} that loadtest may use here; there are {there}"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Settings;

    fn profile(client: Option<&str>, server: Option<&str>) -> Profile {
        let mut flags = Settings::default();
        flags.load.client_cpus = client.map(|cpus| cpus.parse().unwrap());
        flags.server.server_cpus = server.map(|cpus| cpus.parse().unwrap());
        Profile::load(Some("quick"), &flags).unwrap()
    }

    fn shared(client: Option<&str>, server: Option<&str>, threads: usize, cpus: usize) -> (String, String) {
        let all: Vec<usize> = (0..cpus).collect();
        let cores = share(&profile(client, server), threads, Some(&all)).unwrap();
        let text = |cpus: Option<Cpus>| cpus.map_or("any".to_owned(), |cpus| cpus.to_string());
        (text(cores.client), text(cores.server))
    }

    fn pair(client: &str, server: &str) -> (String, String) {
        (client.to_owned(), server.to_owned())
    }

    #[test]
    fn what_is_named_holds_and_the_other_gets_the_rest() {
        assert_eq!(shared(Some("0"), Some("0-1"), 1, 2), pair("0", "0-1"));
        assert_eq!(shared(Some("1"), None, 1, 4), pair("1", "0,2-3"));
        assert_eq!(shared(None, Some("0-2"), 1, 4), pair("3", "0-2"));
        assert_eq!(shared(Some("0-1"), None, 1, 2), pair("0-1", "any"));
    }

    #[test]
    fn unasked_only_a_machine_with_many_processors_is_shared_out() {
        assert_eq!(shared(None, None, 1, 4), pair("any", "any"));
        assert_eq!(shared(None, None, 1, 8), pair("7", "0-6"));
        assert_eq!(shared(None, None, 20, 16), pair("12-15", "0-11"));
    }

    #[test]
    fn processors_that_are_not_there_are_refused_by_the_flag_that_names_them() {
        let refused = |client, server, allowed| {
            share(&profile(client, server), 1, allowed)
                .unwrap_err()
                .to_string()
        };
        let errors = [
            refused(Some("0,99"), None, Some(&[0, 1])),
            refused(None, Some("4"), Some(&[0, 1, 2, 3])),
            refused(None, Some("0"), None),
        ];
        insta::assert_snapshot!(errors.join("\n"));
    }
}
