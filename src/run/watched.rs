//! Who looks at the server while a step runs: at its processes, at the machine's cards, and at its own page of metrics.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::used::{Seen, SeenCard};
use crate::engine::{Recipe, Running};
use crate::measure::{Clock, ServerSecond};
use crate::telemetry::{Archive, Card, Cards, Gauges, MetricsPage, Queue, Root, Usage, Watch};

/// No machine has more cards than this.
const CARDS_AT_MOST: usize = 64;

/// The machine's cards, asked by one step after the other.
pub type SharedCards = Arc<Mutex<Box<dyn Cards>>>;

/// What is to be looked at.
pub struct Looks<'a> {
    /// The run's clock.
    pub clock: Clock,
    /// The machine's cards, where there are any.
    pub cards: Option<&'a SharedCards>,
    /// Where the page of metrics is, by the recipe.
    pub recipe: &'a Recipe,
    /// The server.
    pub running: &'a Running,
    /// The key that it wants.
    pub api_key: Option<&'a str>,
    /// Where its pages of metrics are kept.
    pub archive: PathBuf,
    /// The number of the step in the run.
    pub step: u16,
}

/// Looks once a second, each at a thing of its own.
pub struct Watched {
    usages: Option<Watch<Usage>>,
    cards: Option<Watch<SeenCard>>,
    queues: Option<Watch<Queue>>,
}

impl Watched {
    /// Starts to look.
    ///
    /// # Errors
    /// If the page of metrics cannot be asked for at all.
    pub fn start(looks: &Looks<'_>) -> io::Result<Watched> {
        let clock = looks.clock;
        let now = move || clock.now_ns();
        let processes = looks.running.processes();
        let cards = looks
            .cards
            .filter(|_| processes.is_some() || is_here(looks.running.base_url()))
            .cloned();
        Ok(Watched {
            usages: processes.map(|root| Watch::start(now, move |at_ns| root.usage(at_ns))),
            cards: cards.map(|cards| Watch::start(now, move |at_ns| look_at(&cards, processes, at_ns))),
            queues: page(looks)?.map(|mut page| Watch::start(now, move |at_ns| page.look(at_ns))),
        })
    }

    /// What the server used in the last second.
    pub fn latest(&self) -> Option<ServerSecond> {
        let usages = self.usages.as_ref().map(|watch| watch.peek(|seen| last(seen, 2)));
        let cards = self
            .cards
            .as_ref()
            .map(|watch| watch.peek(|seen| last(seen, CARDS_AT_MOST)));
        let seen = Seen {
            usages: usages.unwrap_or_default(),
            cards: cards.unwrap_or_default(),
            queues: Vec::new(),
        };
        seen.seconds().pop()
    }

    /// Looks for the last time.
    pub fn stop(self) -> Seen {
        Seen {
            usages: self.usages.map(Watch::stop).unwrap_or_default(),
            cards: self.cards.map(Watch::stop).unwrap_or_default(),
            queues: self.queues.map(Watch::stop).unwrap_or_default(),
        }
    }
}

/// The last `count` that were seen.
fn last<T: Clone>(seen: &[T], count: usize) -> Vec<T> {
    seen[seen.len().saturating_sub(count)..].to_vec()
}

/// Whether a server that we did not start runs on this machine, as far as its address tells.
fn is_here(url: &str) -> bool {
    let host = reqwest::Url::parse(url).ok();
    let host = host.as_ref().and_then(reqwest::Url::host_str).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn look_at(cards: &SharedCards, server: Option<Root>, at_ns: u64) -> Vec<SeenCard> {
    let cards = cards.lock().unwrap_or_else(PoisonError::into_inner).look(at_ns);
    let own = server.map(Root::pids);
    let computes = |card: &Card| {
        let (own, on_card) = (own.as_ref()?, card.pids.as_ref()?);
        Some(on_card.iter().any(|pid| own.contains(pid)))
    };
    let seen = |card: Card| SeenCard {
        server: computes(&card),
        card,
    };
    cards.into_iter().map(seen).collect()
}

/// The server's page of metrics, read for its gauges and kept.
struct Page {
    page: MetricsPage,
    gauges: Gauges,
    archive: Archive,
}

impl Page {
    fn look(&mut self, at_ns: u64) -> Option<Queue> {
        let text = self.page.ask()?;
        // A full disk must not end a run, and the run's other files tell of it.
        let _ = self.archive.keep(&text, at_ns);
        self.gauges.read(&text, at_ns)
    }
}

fn page(looks: &Looks<'_>) -> io::Result<Option<Page>> {
    let Some(metrics) = &looks.recipe.metrics else {
        return Ok(None);
    };
    let url = format!("{}{}", looks.running.base_url(), metrics.path);
    Ok(Some(Page {
        page: MetricsPage::new(url, looks.api_key.map(str::to_owned))?,
        gauges: Gauges {
            running: metrics.running.clone(),
            waiting: metrics.waiting.clone(),
        },
        archive: Archive::append(looks.archive.clone(), format!("step {}", looks.step)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_address_is_here() {
        for url in ["http://127.0.0.1:8000", "http://localhost", "http://[::1]:1/v1"] {
            assert!(is_here(url), "{url}");
        }
        for url in ["http://10.0.0.1:8000", "https://llm.example.com", "nonsense"] {
            assert!(!is_here(url), "{url}");
        }
    }

    #[derive(Debug)]
    struct Two;

    impl Cards for Two {
        fn names(&mut self) -> Vec<String> {
            vec!["A".into(); 2]
        }

        fn driver(&self) -> Option<String> {
            None
        }

        fn look(&mut self, at_ns: u64) -> Vec<Card> {
            let card = |index, pids| Card {
                at_ns,
                index,
                pids,
                ..Card::default()
            };
            vec![card(0, Some(vec![1, std::process::id()])), card(1, None)]
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_card_on_which_the_server_computes_is_its() {
        let cards: SharedCards = Arc::new(Mutex::new(Box::new(Two)));
        let its = |root| {
            look_at(&cards, root, 7)
                .iter()
                .map(|seen| seen.server)
                .collect::<Vec<_>>()
        };
        assert_eq!(its(Some(Root::Tree(std::process::id()))), [Some(true), None]);
        assert_eq!(its(None), [None, None]);
    }
}
