//! The loads of a run: what engines are compared under.

use serde::Serialize;

use crate::measure::result::{RunResult, StepResult};

/// What tells one load from another: users, input and output length, arrival rate.
type Key = (u32, u32, u32, Option<u64>);

fn key(step: &StepResult) -> Key {
    let facts = &step.facts;
    (
        facts.users,
        facts.isl.mean,
        facts.osl.mean,
        facts.rate.map(f64::to_bits),
    )
}

/// The run's steps by load and engine.
#[derive(Debug)]
pub(in crate::report) struct Loads<'a> {
    pub run: &'a RunResult,
    /// Names of the engines; their numbers in the page are their places here.
    pub engines: Vec<&'a str>,
    keys: Vec<Key>,
}

/// A load, as the page's script knows it.
#[derive(Debug, Serialize)]
pub(in crate::report) struct Load {
    /// In words: `40 users`, `40 users, 512/128 tokens`.
    pub label: String,
    pub users: u32,
}

/// What varies over the loads of a run, and is drawn against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum Varies {
    Users,
    Input,
    Output,
    Rate,
    Nothing,
}

impl<'a> Loads<'a> {
    pub fn of(run: &'a RunResult) -> Loads<'a> {
        let mut keys: Vec<Key> = run.steps.iter().map(key).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut engines: Vec<&str> = run.engines.iter().map(|engine| engine.name.as_str()).collect();
        // A run whose run.json is lost names its engines in its steps alone.
        for step in &run.steps {
            if !engines.contains(&step.facts.engine.as_str()) {
                engines.push(&step.facts.engine);
            }
        }
        Loads { run, engines, keys }
    }

    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Number of the engine of a step.
    pub fn engine(&self, step: &StepResult) -> usize {
        let named = |name: &&str| *name == step.facts.engine;
        self.engines.iter().position(named).unwrap_or(0)
    }

    /// Number of the load of a step.
    pub fn load(&self, step: &StepResult) -> usize {
        self.keys.binary_search(&key(step)).unwrap_or(0)
    }

    /// The steps under a load, each with the number of its engine; repeats follow each other.
    pub fn under(&self, load: usize) -> impl Iterator<Item = (usize, &'a StepResult)> + '_ {
        let steps = self.run.steps.iter().filter(move |step| self.load(step) == load);
        steps.map(|step| (self.engine(step), step))
    }

    /// The steps of an engine under a load: its repeats.
    pub fn repeats(&self, engine: usize, load: usize) -> Vec<&'a StepResult> {
        self.under(load)
            .filter(|(of, _)| *of == engine)
            .map(|(_, step)| step)
            .collect()
    }

    /// Whether any step was repeated.
    pub fn repeated(&self) -> bool {
        self.run.steps.iter().any(|step| step.facts.repeat > 0)
    }

    fn varies_by<T: PartialEq>(&self, of: impl Fn(&Key) -> T) -> bool {
        self.keys.windows(2).any(|pair| of(&pair[0]) != of(&pair[1]))
    }

    /// What the run sweeps over.
    pub fn varies(&self) -> Varies {
        match () {
            () if self.varies_by(|key| key.0) => Varies::Users,
            () if self.varies_by(|key| key.3) => Varies::Rate,
            () if self.varies_by(|key| key.1) => Varies::Input,
            () if self.varies_by(|key| key.2) => Varies::Output,
            () => Varies::Nothing,
        }
    }

    /// A load's place on the axis of what varies.
    pub fn x(&self, load: usize) -> f64 {
        let (users, input, output, rate) = self.keys[load];
        match self.varies() {
            Varies::Users | Varies::Nothing => f64::from(users),
            Varies::Input => f64::from(input),
            Varies::Output => f64::from(output),
            Varies::Rate => rate.map_or(0.0, f64::from_bits),
        }
    }

    /// The loads that differ in nothing but what the run sweeps over, with what they share in words.
    pub fn sweeps(&self) -> Vec<(String, Vec<usize>)> {
        let varies = self.varies();
        let shared = |&(users, input, output, rate): &Key| {
            let users = if varies == Varies::Users { 0 } else { users };
            let input = if varies == Varies::Input { 0 } else { input };
            let output = if varies == Varies::Output { 0 } else { output };
            let rate = rate.filter(|_| varies != Varies::Rate);
            (users, input, output, rate)
        };
        let mut found: Vec<(Key, Vec<usize>)> = Vec::new();
        for (load, key) in self.keys.iter().enumerate() {
            let shared = shared(key);
            match found.iter_mut().find(|(of, _)| *of == shared) {
                Some((_, loads)) => loads.push(load),
                None => found.push((shared, vec![load])),
            }
        }
        let alone = found.len() == 1;
        let words = |(users, input, output, _): Key| match (users, input, output) {
            _ if alone => String::new(),
            (0, input, output) => format!("{input}/{output} tokens"),
            (_, 0, output) => format!("{output} out"),
            (_, input, 0) => format!("{input} in"),
            (users, ..) => format!("{users} users"),
        };
        found
            .into_iter()
            .map(|(key, loads)| (words(key), loads))
            .collect()
    }

    /// The loads in words.
    pub fn labels(&self) -> Vec<Load> {
        let lengths = self.varies_by(|key| (key.1, key.2));
        let rates = self.varies_by(|key| key.3);
        let label = |&(users, input, output, rate): &Key| {
            let mut label = match users {
                1 => "1 user".to_owned(),
                users => format!("{users} users"),
            };
            if lengths {
                label += &format!(", {input}/{output} tokens");
            }
            if let Some(rate) = rate.filter(|_| rates) {
                label += &format!(", {} req/s", f64::from_bits(rate));
            }
            Load { label, users }
        };
        self.keys.iter().map(label).collect()
    }
}
