//! Which engines there are: the shipped recipes, those of the checkout, and the user's own.

use std::fs;
use std::path::{Path, PathBuf};

use super::recipe::{Recipe, RecipeError, nearest};

/// A recipe that is part of this program, with the files beside it.
struct Shipped {
    name: &'static str,
    path: &'static str,
    recipe: &'static str,
    files: &'static [(&'static str, &'static str)],
}

/// The recipe in `servers/NAME`, and the files beside it that an installation or a conversion needs; for one of several
/// recipes in a folder, `NAME: FOLDER, RECIPE`.
macro_rules! shipped {
    ($name:literal $(, $file:literal)*) => {
        shipped!($name: $name, "engine.toml" $(, $file)*)
    };
    ($name:literal: $folder:literal, $recipe:literal $(, $file:literal)*) => {
        Shipped {
            name: $name,
            path: concat!("servers/", $folder, "/", $recipe),
            recipe: include_str!(concat!("../../servers/", $folder, "/", $recipe)),
            files: &[$(($file, include_str!(concat!("../../servers/", $folder, "/", $file)))),*],
        }
    };
}

const SHIPPED: &[Shipped] = &[
    shipped!("candle"),
    shipped!("burn"),
    shipped!("mistralrs"),
    shipped!("llamacpp", "serve.py"),
    shipped!("pytorch": "transformers", "engine.toml", "serve.py", "convert.py"),
    shipped!("pytorch-cb": "transformers", "engine-cb.toml", "serve.py", "convert.py"),
    shipped!("vllm"),
    shipped!("sglang"),
    shipped!("tgi"),
    shipped!("ollama"),
    shipped!("lmrs", "convert.py"),
    shipped!("lmstudio"),
    shipped!("uzu"),
    shipped!("command"),
    shipped!("attach"),
];

/// Every engine: shipped recipes first, then those of the checkout's `servers/` and of `servers/` in the user's
/// configuration folder, where a recipe replaces an earlier one of the same name.
///
/// # Errors
/// A recipe that can't be read, with its file and line.
pub fn recipes() -> Result<Vec<Recipe>, RecipeError> {
    let mut all = Vec::new();
    for shipped in SHIPPED {
        all.push(Recipe::parse(shipped.recipe, shipped.path, None)?);
    }
    let checkout = checkout().map(|root| root.join("servers"));
    let user = dirs::config_dir().map(|dir| dir.join("loadtest/servers"));
    for folder in checkout.iter().chain(&user) {
        for recipe in in_folder(folder)? {
            match all.iter_mut().find(|known| known.name == recipe.name) {
                Some(known) => *known = recipe,
                None => all.push(recipe),
            }
        }
    }
    Ok(all)
}

/// The recipe called `name`.
///
/// # Errors
/// An unknown name, with the nearest known one.
pub fn recipe(name: &str) -> Result<Recipe, RecipeError> {
    let all = recipes()?;
    if let Some(found) = all.iter().find(|recipe| recipe.name == name) {
        return Ok(found.clone());
    }
    let names: Vec<&str> = all.iter().map(|recipe| recipe.name.as_str()).collect();
    Err(RecipeError::Unknown {
        name: name.into(),
        nearest: nearest(&name.to_lowercase(), names.iter().copied()).map(Into::into),
        known: names.join(", "),
    })
}

/// The recipes in the sub-folders of `folder`, by name.
fn in_folder(folder: &Path) -> Result<Vec<Recipe>, RecipeError> {
    let inside = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let is_recipe = |file: &PathBuf| {
        let name = file.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("engine") && name.ends_with(".toml")) && file.is_file()
    };
    let mut files: Vec<PathBuf> = inside(folder).iter().flat_map(|dir| inside(dir)).collect();
    files.retain(is_recipe);
    files.sort();
    files
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file).map_err(|source| RecipeError::Read {
                path: file.clone(),
                source,
            })?;
            Recipe::parse(&text, &file.display().to_string(), file.parent())
        })
        .collect()
}

/// The text of a file that stands beside the recipe.
pub(super) fn file_beside(recipe: &Recipe, name: &Path) -> Result<String, RecipeError> {
    if let Some(dir) = &recipe.dir {
        let path = dir.join(name);
        return fs::read_to_string(&path).map_err(|source| RecipeError::Read { path, source });
    }
    let shipped = SHIPPED.iter().filter(|shipped| shipped.name == recipe.name);
    let text = shipped
        .flat_map(|shipped| shipped.files)
        .find(|(file, _)| Path::new(file) == name);
    text.map(|(_, text)| (*text).to_owned())
        .ok_or_else(|| RecipeError::Read {
            path: name.to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        })
}

/// The root of the source checkout that this program runs from, if it does.
pub fn checkout() -> Option<PathBuf> {
    let is_root = |dir: &Path| {
        dir.join("servers/candle/engine.toml").is_file()
            && fs::read_to_string(dir.join("Cargo.toml"))
                .is_ok_and(|text| text.contains("name = \"loadtest\""))
    };
    let program = std::env::current_exe().ok();
    let here = std::env::current_dir().ok();
    // `cargo run` and `cargo test` say where the package is, whatever the target directory.
    let cargo = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let starts = [cargo, program, here];
    starts
        .iter()
        .flatten()
        .flat_map(|start| start.ancestors())
        .find(|dir| is_root(dir))
        .map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Availability, Kind};

    fn parsed(shipped: &Shipped) -> Recipe {
        Recipe::parse(shipped.recipe, shipped.name, None).unwrap()
    }

    #[test]
    fn shipped_recipes_are_sound() {
        for shipped in SHIPPED {
            let recipe = parsed(shipped);
            assert_eq!(recipe.name, shipped.name);
            let files = recipe.install.iter().flat_map(|install| &install.files);
            let converters = recipe.convert.iter().flat_map(|convert| &convert.files);
            for file in files.chain(converters) {
                file_beside(&recipe, file).unwrap();
            }
        }
        assert_eq!(recipe("attach").unwrap().kind, Kind::Attach);
    }

    #[test]
    fn one_that_is_not_here_says_what_to_type() {
        for recipe in SHIPPED.iter().map(parsed) {
            let message = match recipe.availability().unwrap() {
                Availability::Missing { what_to_do } => what_to_do,
                Availability::Installable { how } => how,
                _ => continue,
            };
            let here =
                recipe.platforms.is_empty() || recipe.platforms.iter().any(|p| p == std::env::consts::OS);
            let wanted = match (recipe.kind, here) {
                (_, false) => "it runs on",
                (Kind::Command, true) => "--command",
                (Kind::Bridge, true) => "name the program in",
                _ => "type `",
            };
            assert!(message.contains(wanted), "{}: {message}", recipe.name);
        }
    }

    #[test]
    fn flavours_of_one_engine_share_its_environment_and_its_conversions() {
        let [plain, batching] = ["pytorch", "pytorch-cb"].map(|name| recipe(name).unwrap());
        assert_eq!(
            (plain.install, plain.convert, plain.dialect),
            (batching.install, batching.convert, batching.dialect)
        );
    }

    #[test]
    fn each_knows_what_its_server_cannot_do() {
        let without: Vec<&str> = SHIPPED
            .iter()
            .filter(|shipped| parsed(shipped).dialect.ignore_eos.is_none())
            .map(|shipped| shipped.name)
            .collect();
        assert_eq!(without, ["mistralrs", "tgi", "ollama", "lmrs", "lmstudio", "uzu"]);
    }

    #[test]
    fn an_unknown_engine_is_answered_with_the_nearest() {
        let message = recipe("llamacp").unwrap_err().to_string();
        assert!(
            message.contains("did you mean `llamacpp`?") && message.contains("candle"),
            "{message}"
        );
    }

    #[test]
    fn a_folder_of_recipes_needs_no_rust() {
        let dir = tempfile::tempdir().unwrap();
        let text = "name='mine'\ntitle='Mine'\nkind='spawned'\ndescription='x'\n[find]\nprograms=['mine']\n\
                    [serve]\nargs=['{port}']\n";
        fs::create_dir(dir.path().join("mine")).unwrap();
        fs::create_dir(dir.path().join("empty")).unwrap();
        fs::write(dir.path().join("mine/engine.toml"), text).unwrap();
        let found = in_folder(dir.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].name.as_str(), found[0].dir.as_deref()),
            ("mine", Some(&*dir.path().join("mine")))
        );
    }
}
