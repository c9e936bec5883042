//! Notes on engines that cannot have or do all that the profile asks for.

use crate::engine::{Recipe, Setting};
use crate::profile::{Profile, Verify};

/// What a reader must know of engines that cannot do all that the profile asks for.
pub fn of(profile: &Profile, recipes: &[Recipe]) -> Vec<String> {
    if profile.verify == Verify::Only {
        return Vec::new();
    }
    let stops = |recipe: &&Recipe| profile.requests.ignore_eos && recipe.dialect.ignore_eos.is_none();
    let note = |recipe: &Recipe| {
        format!(
            "{} cannot go on past its model's end token: its answers may be shorter than asked for",
            recipe.name
        )
    };
    let sampling = |recipe: &&Recipe| recipe.ready.sampling;
    let alike = |recipe: &Recipe| {
        format!(
            "{} samples every answer as its first request asked: the load's temperature and top_p, and no other",
            recipe.name
        )
    };
    let stopping = recipes.iter().filter(stops).map(note);
    stopping
        .chain(recipes.iter().filter(sampling).map(alike))
        .chain(recipes.iter().filter_map(|recipe| untold(profile, recipe)))
        .chain(recipes.iter().filter_map(|recipe| unrepeatable(profile, recipe)))
        .chain(recipes.iter().filter(|_| recipes.len() > 1).filter_map(unlike))
        .collect()
}

/// Of what engines are to have alike, that which this one is not told.
fn unlike(recipe: &Recipe) -> Option<String> {
    let alike = [
        (Setting::Parallel, "how many sequences to run at once"),
        (Setting::Threads, "how many threads to use"),
    ];
    let missing: Vec<&str> = alike
        .into_iter()
        .filter_map(|(setting, words)| (!recipe.passes(setting)).then_some(words))
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "{} is not told {}: it chooses for itself",
            recipe.name,
            missing.join(" and ")
        )
    })
}

/// What an engine is not told of how to draw tokens, because it has no field for it.
fn untold(profile: &Profile, recipe: &Recipe) -> Option<String> {
    let (dialect, requests) = (&recipe.dialect, &profile.requests);
    let drawn = requests.temperature > 0.0;
    let settings = [
        ("temperature", &dialect.temperature, true),
        ("top_p", &dialect.top_p, drawn && requests.top_p < 1.0),
        ("top_k", &dialect.top_k, drawn && requests.top_k.is_some()),
        ("seed", &dialect.seed, drawn),
    ];
    let missing: Vec<&str> = settings
        .into_iter()
        .filter(|(_, field, matters)| *matters && field.is_none())
        .map(|(name, ..)| name)
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "{} takes no {} with a request: it draws its tokens in its own way",
            recipe.name,
            missing.join(", ")
        )
    })
}

/// What seeds do where the engine has one for all that it answers at once.
fn unrepeatable(profile: &Profile, recipe: &Recipe) -> Option<String> {
    let several = profile.users.iter().any(|users| *users > 1);
    let drawn = profile.requests.temperature > 0.0;
    (several && drawn && recipe.dialect.shared_seed).then(|| {
        format!(
            "{} has one seed for all its requests: those of several users do not repeat under a seed",
            recipe.name
        )
    })
}
