//! Answers verified: every engine's before its load, alone; and again while its users ask.

use std::time::Duration;

use super::engines;
use super::step::Bench;
use crate::engine::{Questioner, Recipe, Running};
use crate::load::Gate;
use crate::measure::Store;
use crate::measure::result::{EngineAnswers, UnderLoad};
use crate::profile::{Endpoint, Profile, Verify};
use crate::verify::{self, BETWEEN_ENGINES, Loaded, TOKENS, Verifier};

/// Who keeps the engines' answers, if the profile wants them verified.
pub fn verifier(profile: &Profile, engines: impl Iterator<Item = String>) -> Option<Verifier> {
    let wanted = profile.verify != Verify::Off;
    wanted.then(|| Verifier::new(engines.collect(), profile.verify_against.clone()))
}

/// Asks an engine that has just come up for the first time, and holds its answers against the reference's. That it does not
/// answer is part of the report.
///
/// # Errors
/// If the result cannot be saved.
pub fn alone(
    bench: &Bench<'_>,
    store: &mut Store,
    index: usize,
    recipe: &Recipe,
    running: &Running,
    api_key: Option<&str>,
    control: &tokio::runtime::Runtime,
) -> anyhow::Result<()> {
    let Some(verifier) = bench
        .verifier
        .as_ref()
        .filter(|verifier| !verifier.has_asked(index))
    else {
        return Ok(());
    };
    let counter = bench.subject.count();
    let counter = counter.as_ref().map(|count| count as &dyn Fn(&str) -> usize);
    let shown = bench
        .progress
        .task(&format!("{}: verifying its answers", recipe.name), None);
    let prompts = verify::prompts().len();
    let asked = async {
        let questioner = questioner(bench, recipe, running, api_key)?;
        let told = |number| {
            let done = format!("{}: verifying its answers, {number}/{prompts}", recipe.name);
            shown.message(&done);
        };
        Ok::<_, String>(verifier.ask(index, &questioner, counter, told).await)
    };
    let found = control.block_on(async {
        tokio::select! {
            found = asked => Some(found),
            exit = running.died() => Some(Err(format!("it died, {exit}"))),
            () = bench.interrupt.asked() => None,
        }
    });
    let found = match found {
        None => return Ok(()),
        Some(Ok(found)) => found,
        Some(Err(why)) => EngineAnswers {
            engine: recipe.name.clone(),
            failure: Some(why),
            ..EngineAnswers::default()
        },
    };
    Ok(store.verified(|all| {
        all.prompts = u32::try_from(prompts).unwrap_or(u32::MAX);
        all.max_tokens = TOKENS;
        all.near_tie = BETWEEN_ENGINES;
        all.engines.push(found);
        verifier.compare(all, counter);
    })?)
}

/// Who asks the engine; none, and why, if no answer of it is known to be greedy.
fn questioner(
    bench: &Bench<'_>,
    recipe: &Recipe,
    running: &Running,
    api_key: Option<&str>,
) -> Result<Questioner, String> {
    let requests = &bench.profile.requests;
    if recipe.ready.sampling && bench.profile.verify == Verify::On && requests.temperature > 0.0 {
        return Err(
            "it samples every answer as the load does: verify it with --verify=only or under --temperature 0"
                .into(),
        );
    }
    let access = engines::access(bench.profile, api_key);
    let patience: Duration = requests.timeouts.total;
    let chat = requests.endpoint == Endpoint::Chat;
    Questioner::new(recipe, running, &access, chat, TOKENS, patience).map_err(|error| error.to_string())
}

/// Who asks an engine again in each step.
pub struct Again<'a> {
    bench: &'a Bench<'a>,
    verifier: &'a Verifier,
    questioner: Questioner,
    engine: usize,
    answered: Vec<usize>,
}

impl<'a> Again<'a> {
    /// For an engine that has answered alone; nothing for another.
    pub fn new(
        bench: &'a Bench<'a>,
        engine: usize,
        recipe: &Recipe,
        running: &Running,
        api_key: Option<&str>,
    ) -> Option<Self> {
        let verifier = bench.verifier.as_ref()?;
        let answered = verifier.answered(engine);
        if answered.is_empty() {
            return None;
        }
        Some(Self {
            bench,
            verifier,
            questioner: questioner(bench, recipe, running, api_key).ok()?,
            engine,
            answered,
        })
    }

    /// Asks while the users of step number `step` do, which `gate` tells; blocks until that is done.
    pub fn ask(&self, gate: &Gate, step: usize) -> Vec<Loaded> {
        let _opens = gate.opens_at_end();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => {
                let ask = |prompt| self.questioner.ask(prompt);
                runtime.block_on(verify::ask_under_load(ask, gate, &self.answered, step))
            }
            Err(_) => Vec::new(),
        }
    }

    /// What is made of the answers.
    pub fn judge(&self, loaded: &[Loaded]) -> Option<UnderLoad> {
        let counter = self.bench.subject.count();
        let counter = counter.as_ref().map(|count| count as &dyn Fn(&str) -> usize);
        self.verifier.under_load(self.engine, loaded, counter)
    }
}
