//! In which order engines take their turns.

use std::ops::Range;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Profile, Verify};

/// In which order engines take their turns when steps are repeated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// All repeats of an engine, then those of the next: A A B B
    #[default]
    Sequential,
    /// A repeat of every engine, in an order that the seed decides: A B, B A
    Shuffled,
    /// A repeat of every engine, then the next repeat: A B A B, so that a machine that drifts hits all alike
    Interleaved,
}

/// One turn of an engine: every step of some repeats, by a server that is started for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Its place among the engines of the profile.
    pub engine: usize,
    /// The repeats.
    pub repeats: Range<u32>,
}

impl Profile {
    /// The turns of `engines` engines. Each repeat of each is in one of them.
    pub fn turns(&self, engines: usize) -> Vec<Turn> {
        let turn = |engine, repeats| Turn { engine, repeats };
        // A server that runs already cannot be started anew, and without a load there is nothing to repeat.
        if !self.restart || self.url.is_some() || self.verify == Verify::Only {
            let mut turns: Vec<_> = (0..engines).map(|engine| turn(engine, 0..self.repeat)).collect();
            if self.order == Order::Shuffled {
                turns.shuffle(&mut ChaCha8Rng::seed_from_u64(self.requests.seed));
            }
            return turns;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.requests.seed);
        let round = |repeat: u32| (0..engines).map(move |engine| turn(engine, repeat..repeat + 1));
        let mut turns: Vec<_> = (0..self.repeat).flat_map(round).collect();
        match self.order {
            Order::Interleaved => {}
            Order::Sequential => turns.sort_by_key(|turn| turn.engine),
            Order::Shuffled => turns
                .chunks_mut(engines.max(1))
                .for_each(|round| round.shuffle(&mut rng)),
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Settings;
    use super::*;

    fn profile(order: Order, repeat: u32, restart: bool, seed: u64) -> Profile {
        let mut settings = Settings::default();
        settings.measure.order = Some(order);
        settings.measure.repeat = Some(repeat);
        settings.measure.restart = Some(restart);
        settings.requests.seed = Some(seed);
        Profile::load(None, &settings).unwrap()
    }

    fn engines(order: Order) -> Vec<usize> {
        let turns = profile(order, 2, true, 0).turns(3);
        turns.into_iter().map(|turn| turn.engine).collect()
    }

    #[test]
    fn engines_take_turns_as_asked() {
        assert_eq!(engines(Order::Sequential), [0, 0, 1, 1, 2, 2]);
        assert_eq!(engines(Order::Interleaved), [0, 1, 2, 0, 1, 2]);
        let once = profile(Order::Sequential, 2, false, 0).turns(1);
        assert_eq!(
            once,
            [Turn {
                engine: 0,
                repeats: 0..2
            }]
        );
    }

    proptest! {
        #[test]
        fn every_repeat_of_every_engine_has_its_turn(
            order in prop_oneof![Just(Order::Sequential), Just(Order::Shuffled), Just(Order::Interleaved)],
            repeat in 1u32..6,
            engines in 1usize..6,
            restart: bool,
            seed: u64,
        ) {
            let restart = restart || order == Order::Interleaved;
            let profile = profile(order, repeat, restart, seed);
            let turns = profile.turns(engines);
            prop_assert_eq!(&turns, &profile.turns(engines));
            let mut seen: Vec<_> = turns
                .iter()
                .flat_map(|turn| turn.repeats.clone().map(|repeat| (turn.engine, repeat)))
                .collect();
            if order != Order::Sequential && restart {
                for round in turns.chunks(engines) {
                    prop_assert!(round.iter().all(|turn| turn.repeats == round[0].repeats));
                }
            }
            seen.sort_unstable();
            let all: Vec<_> = (0..engines).flat_map(|engine| (0..repeat).map(move |r| (engine, r))).collect();
            prop_assert_eq!(seen, all);
        }
    }
}
