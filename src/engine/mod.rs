//! Who is tested: what is known of each engine ([`Recipe`]), how its program is had ([`ensure`], [`install()`]) and
//! its model ([`convert()`]), and its server's life from start to stop ([`start`], [`attach`], [`Running`]).
//!
//! An engine is always another process, reached through the same socket as anyone's server.

mod answer;
mod build;
mod catalogue;
mod check;
mod command;
mod convert;
mod environment;
mod error;
mod golang;
pub mod guard;
mod honoured;
mod install;
mod locate;
mod log;
mod orphans;
mod prepare;
mod probe;
mod process;
mod recipe;
mod server;
mod settings;

pub use answer::{Answer, Questioner};
pub use catalogue::{checkout, recipe, recipes};
pub use check::{Findings, check};
pub use convert::{Converted, convert, is_converted};
pub use error::EngineError;
pub use honoured::{Parameter, Verdict};
pub use install::install;
pub use locate::{Availability, Listed, Program, ensure, list};
pub use process::{Exit, this_program};
pub use recipe::{
    Build, Convert, Dialect, Find, Fixed, Install, Kind, Metrics, PLACEHOLDERS, Probe, ReadBack, Ready,
    Recipe, RecipeError, Serve,
};
pub use server::{Load, Running, attach, start};
pub use settings::{Effective, Sampling, Settings};

/// Someone who is told what goes on, at least every few seconds, while something takes long.
pub trait Progress: Sync {
    /// One line about what goes on now.
    fn status(&self, message: &str);
    /// One line that stays, such as what is about to be spent.
    fn note(&self, message: &str) {
        self.status(message);
    }
    /// Whether the user has asked to stop: a command that gets an engine is then ended.
    fn stopped(&self) -> bool {
        false
    }
}

impl<F: Fn(&str) + Sync> Progress for F {
    fn status(&self, message: &str) {
        self(message);
    }
}
