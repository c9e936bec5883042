//! From what was seen of a server to what it used: second by second, and over the window.

use std::collections::BTreeMap;

use crate::measure::result::{GpuResult, ServerResult};
use crate::measure::{GpuSecond, ServerSecond, StepContext, Window};
use crate::telemetry::{Card, Queue, Usage};

const SECOND_NS: u64 = 1_000_000_000;

/// A card at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenCard {
    /// What its driver told.
    pub card: Card,
    /// Whether a process of the server computed on it, where that is known.
    pub server: Option<bool>,
}

/// All that was seen of a server during a step, each in the order of time.
#[derive(Debug, Default)]
pub struct Seen {
    /// Its processes.
    pub usages: Vec<Usage>,
    /// The machine's cards.
    pub cards: Vec<SeenCard>,
    /// Its queue, by its own word.
    pub queues: Vec<Queue>,
}

impl Seen {
    /// What it used inside the window, and said of its queue.
    pub fn context(&self, window: Window) -> StepContext {
        let mean = |gauge: fn(&Queue) -> Option<f64>| {
            let inside = self.queues.iter().filter(|queue| window.holds(queue.at_ns));
            mean(inside.filter_map(gauge))
        };
        StepContext {
            server: self.server(window),
            server_running: mean(|queue| queue.running),
            server_waiting: mean(|queue| queue.waiting),
            ..StepContext::default()
        }
    }

    fn server(&self, window: Window) -> Option<ServerResult> {
        let (usages, cards) = (&self.usages, self.by_card());
        if usages.is_empty() && cards.is_empty() {
            return None;
        }
        let added = |value: fn(&Usage) -> f64| {
            let points: Vec<_> = usages.iter().map(|usage| (usage.at_ns, value(usage))).collect();
            grown(&points, window)
        };
        let count = |value: fn(&Usage) -> f64| added(value).map(|count| count.round() as u64);
        let most = |value: fn(&Usage) -> u64| usages.iter().map(value).max();
        let cpu_s = added(|usage| usage.cpu_s);
        Some(ServerResult {
            cpu_s,
            cpu_cores: cpu_s
                .map(|cpu_s| cpu_s / length_s(window))
                .filter(|c| c.is_finite()),
            rss_peak_bytes: most(|usage| usage.rss_bytes),
            rss_high_water_bytes: most(|usage| usage.rss_peak_bytes),
            threads_peak: most(|usage| usage.threads),
            minor_faults: count(|usage| usage.minor_faults as f64),
            major_faults: count(|usage| usage.major_faults as f64),
            gpu: cards.values().map(|card| gpu(card, window)).collect(),
        })
    }

    /// What was used in each second. Looks come at full seconds; two of them bound one.
    pub fn seconds(&self) -> Vec<ServerSecond> {
        let mut seconds: BTreeMap<u64, ServerSecond> = BTreeMap::new();
        for pair in self.usages.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            let second = at(&mut seconds, before.at_ns.midpoint(after.at_ns));
            let passed_s = after.at_ns.saturating_sub(before.at_ns) as f64 / SECOND_NS as f64;
            let cores = (after.cpu_s - before.cpu_s).max(0.0) / passed_s;
            second.cpu_cores = cores.is_finite().then_some(cores);
            second.rss_bytes = Some(after.rss_bytes);
            second.threads = Some(after.threads);
            second.minor_faults = Some(after.minor_faults.saturating_sub(before.minor_faults));
            second.major_faults = Some(after.major_faults.saturating_sub(before.major_faults));
        }
        // A look at the end of a second tells of it.
        for seen in &self.cards {
            let second = at(&mut seconds, seen.card.at_ns.saturating_sub(SECOND_NS / 2));
            second.gpus.retain(|other| other.gpu != seen.card.index);
            second.gpus.push(gpu_second(seen));
        }
        seconds.into_values().collect()
    }

    fn by_card(&self) -> BTreeMap<u32, Vec<&SeenCard>> {
        let mut cards: BTreeMap<u32, Vec<&SeenCard>> = BTreeMap::new();
        for seen in &self.cards {
            cards.entry(seen.card.index).or_default().push(seen);
        }
        cards
    }
}

/// The row of the second that holds the instant.
fn at(seconds: &mut BTreeMap<u64, ServerSecond>, at_ns: u64) -> &mut ServerSecond {
    let at_s = at_ns / SECOND_NS;
    seconds.entry(at_s).or_insert_with(|| ServerSecond {
        at_s,
        ..ServerSecond::default()
    })
}

fn gpu_second(SeenCard { card, server }: &SeenCard) -> GpuSecond {
    GpuSecond {
        gpu: card.index,
        name: card.name.clone(),
        server: *server,
        utilisation_pct: card.utilisation_pct,
        memory_bytes: card.memory_bytes,
        power_w: card.power_w,
        temperature_c: card.temperature_c,
        sm_clock_mhz: card.sm_clock_mhz,
        memory_clock_mhz: card.memory_clock_mhz,
        pcie_rx_bytes_per_s: card.pcie_rx_bytes_per_s,
        pcie_tx_bytes_per_s: card.pcie_tx_bytes_per_s,
    }
}

/// One card over the window: means over the looks inside, or the nearest one of a window without a look.
fn gpu(seen: &[&SeenCard], window: Window) -> GpuResult {
    let mut inside: Vec<&Card> = seen
        .iter()
        .map(|seen| &seen.card)
        .filter(|card| window.holds(card.at_ns))
        .collect();
    if inside.is_empty() {
        let distance = |seen: &&&SeenCard| seen.card.at_ns.abs_diff(window.start_ns);
        inside.extend(seen.iter().min_by_key(distance).map(|seen| &seen.card));
    }
    let average = |value: fn(&Card) -> Option<f64>| mean(inside.iter().copied().filter_map(value));
    let power_w = average(|card| card.power_w);
    let counter: Option<Vec<_>> = seen
        .iter()
        .map(|seen| Some((seen.card.at_ns, seen.card.energy_j?)))
        .collect();
    let counted = counter.and_then(|points| grown(&points, window));
    let last = seen.last().map(|seen| &seen.card);
    let uses = seen.iter().filter_map(|seen| seen.server);
    GpuResult {
        index: last.map_or(0, |card| card.index),
        name: last.map_or_else(String::new, |card| card.name.clone()),
        server: uses.reduce(|one, other| one || other),
        utilisation_pct: average(|card| card.utilisation_pct),
        memory_peak_bytes: seen.iter().filter_map(|seen| seen.card.memory_bytes).max(),
        memory_total_bytes: last.and_then(|card| card.memory_total_bytes),
        power_w,
        energy_j: counted.or_else(|| Some(power_w? * length_s(window))),
        temperature_max_c: inside
            .iter()
            .filter_map(|card| card.temperature_c)
            .max_by(f64::total_cmp),
        sm_clock_mhz: average(|card| card.sm_clock_mhz),
        memory_clock_mhz: average(|card| card.memory_clock_mhz),
        pcie_rx_bytes_per_s: average(|card| card.pcie_rx_bytes_per_s),
        pcie_tx_bytes_per_s: average(|card| card.pcie_tx_bytes_per_s),
    }
}

fn length_s(window: Window) -> f64 {
    window.end_ns.saturating_sub(window.start_ns) as f64 / SECOND_NS as f64
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / f64::from(count))
}

/// By how much a counter grew over the window: between two looks it is taken to grow evenly, before the first and after
/// the last not at all.
fn grown(points: &[(u64, f64)], window: Window) -> Option<f64> {
    let value_at = |at_ns: u64| {
        let next = points.partition_point(|point| point.0 < at_ns);
        match (next.checked_sub(1).map(|before| points[before]), points.get(next)) {
            (Some((t0, v0)), Some((t1, v1))) => Some(v0 + (v1 - v0) * (at_ns - t0) as f64 / (t1 - t0) as f64),
            (Some((_, value)), None) | (None, Some(&(_, value))) => Some(value),
            (None, None) => None,
        }
    };
    Some((value_at(window.end_ns)? - value_at(window.start_ns)?).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window {
        start_ns: 2_500_000_000,
        end_ns: 4_500_000_000,
    };

    /// Half a processor, from 1 s on: a look in between, then one at each full second.
    fn usages() -> Vec<Usage> {
        [1.25, 2.0, 3.0, 4.0, 5.0]
            .map(|at_s: f64| Usage {
                at_ns: (at_s * 1e9) as u64,
                cpu_s: 100.0 + at_s / 2.0,
                rss_bytes: if at_s == 3.0 { 900 } else { 800 },
                rss_peak_bytes: 1_000,
                threads: 7,
                minor_faults: (at_s * 100.0) as u64,
                major_faults: 3,
            })
            .to_vec()
    }

    fn card(index: u32, at_s: u64, power_w: f64, energy_j: Option<f64>) -> SeenCard {
        SeenCard {
            card: Card {
                at_ns: at_s * SECOND_NS + 20_000_000,
                index,
                name: "A".into(),
                utilisation_pct: Some(10.0 * at_s as f64),
                memory_bytes: Some(at_s),
                power_w: Some(power_w),
                energy_j,
                temperature_c: Some(60.0 - at_s as f64),
                ..Card::default()
            },
            server: Some(index == 1 && at_s == 3),
        }
    }

    #[test]
    fn counters_are_read_at_the_windows_ends() {
        let seen = Seen {
            usages: usages(),
            ..Seen::default()
        };
        let server = seen.context(WINDOW).server.unwrap();
        assert_eq!((server.cpu_s, server.cpu_cores), (Some(1.0), Some(0.5)));
        assert_eq!((server.minor_faults, server.major_faults), (Some(200), Some(0)));
        assert_eq!(
            (server.rss_peak_bytes, server.rss_high_water_bytes),
            (Some(900), Some(1_000))
        );
        assert_eq!((server.threads_peak, server.gpu.len()), (Some(7), 0));
        assert_eq!(Seen::default().context(WINDOW).server, None);
    }

    #[test]
    fn two_looks_bound_a_second() {
        let seen = Seen {
            usages: usages(),
            ..Seen::default()
        };
        let seconds = seen.seconds();
        let shown: Vec<_> = seconds
            .iter()
            .map(|second| {
                (
                    second.at_s,
                    second.cpu_cores,
                    second.minor_faults,
                    second.rss_bytes,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                (1, Some(0.5), Some(75), Some(800)),
                (2, Some(0.5), Some(100), Some(900)),
                (3, Some(0.5), Some(100), Some(800)),
                (4, Some(0.5), Some(100), Some(800)),
            ]
        );
    }

    #[test]
    fn cards_are_averaged_over_the_window_and_their_energy_is_counted() {
        let cards = (1..6).flat_map(|at_s| {
            [
                card(0, at_s, 100.0, None),
                card(1, at_s, 200.0, Some(1_000.0 + 200.0 * at_s as f64)),
            ]
        });
        let seen = Seen {
            cards: cards.collect(),
            ..Seen::default()
        };
        let server = seen.context(WINDOW).server.unwrap();
        assert_eq!((server.cpu_s, server.rss_peak_bytes), (None, None));
        let [first, second] = &server.gpu[..] else {
            panic!("{server:?}")
        };
        assert_eq!((first.energy_j, first.server), (Some(200.0), Some(false)));
        assert_eq!((second.energy_j, second.server), (Some(400.0), Some(true)));
        assert_eq!(
            (first.utilisation_pct, first.temperature_max_c),
            (Some(35.0), Some(57.0))
        );
        assert_eq!(
            (first.memory_peak_bytes, first.pcie_rx_bytes_per_s),
            (Some(5), None)
        );
        assert_eq!(server.its_gpus().len(), 1);
        let seconds = seen.seconds();
        let of: Vec<_> = seconds
            .iter()
            .map(|second| (second.at_s, second.gpus.len()))
            .collect();
        assert_eq!(of, [(0, 2), (1, 2), (2, 2), (3, 2), (4, 2)]);
        assert_eq!(seconds[2].gpus[1].server, Some(true));
    }

    #[test]
    fn a_window_without_a_look_takes_the_nearest() {
        let seen = Seen {
            cards: vec![card(0, 1, 100.0, None), card(0, 2, 200.0, None)],
            ..Seen::default()
        };
        let between = Window {
            start_ns: 2_300_000_000,
            end_ns: 2_800_000_000,
        };
        let server = seen.context(between).server.unwrap();
        assert_eq!(
            (server.gpu[0].power_w, server.gpu[0].energy_j),
            (Some(200.0), Some(100.0))
        );
    }

    #[test]
    fn the_servers_own_gauges_are_averaged_inside_the_window() {
        let queue = |at_s: u64, running: f64, waiting| Queue {
            at_ns: at_s * SECOND_NS,
            running: Some(running),
            waiting,
        };
        let seen = Seen {
            queues: vec![queue(1, 9.0, None), queue(3, 2.0, None), queue(4, 4.0, Some(1.0))],
            ..Seen::default()
        };
        let context = seen.context(WINDOW);
        assert_eq!(
            (context.server_running, context.server_waiting),
            (Some(3.0), Some(1.0))
        );
    }
}
