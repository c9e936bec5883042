//! The facts about the machine that stand beside its figures.

use serde::Serialize;

use super::Cards;

/// The machine a run was made on. What the system does not tell is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor's model.
    pub cpu_model: Option<String>,
    /// Processors that this process may use: threads of cores, after affinity and container limits.
    pub cpus: usize,
    /// Cores of the machine.
    pub cores: Option<usize>,
    /// Instruction sets that engines care for, of those the processor has.
    pub cpu_features: Vec<String>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Its graphics cards, of those that can be asked.
    pub gpus: Vec<String>,
    /// Their driver.
    pub gpu_driver: Option<String>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// The system's name and version.
    pub os: String,
    /// The processor architecture.
    pub arch: &'static str,
}

#[cfg(target_os = "linux")]
const FEATURES: [&str; 8] = [
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_vnni",
    "amx_tile",
    "asimd",
    "asimddp",
    "sve",
];

impl Machine {
    /// Asks the system, and the cards.
    pub fn read(cards: Option<&mut (dyn Cards + 'static)>) -> Machine {
        let mut machine = Machine {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            os: std::env::consts::OS.into(),
            arch: std::env::consts::ARCH,
            ..Machine::default()
        };
        if let Some(cards) = cards {
            machine.gpus = cards.names();
            machine.gpu_driver = cards.driver();
        }
        #[cfg(target_os = "linux")]
        machine.read_proc();
        machine
    }

    #[cfg(target_os = "linux")]
    fn read_proc(&mut self) {
        use procfs::Current;
        use std::collections::BTreeSet;

        if let Ok(info) = procfs::CpuInfo::current() {
            self.cpu_model = info.model_name(0).map(Into::into);
            let core = |cpu| {
                Some((
                    info.get_field(cpu, "physical id")?,
                    info.get_field(cpu, "core id")?,
                ))
            };
            let cores: BTreeSet<_> = (0..info.num_cores()).filter_map(core).collect();
            self.cores = (!cores.is_empty()).then_some(cores.len());
            let flags = info
                .flags(0)
                .or_else(|| Some(info.get_field(0, "Features")?.split(' ').collect()));
            let has = |name: &&&str| flags.as_ref().is_some_and(|flags| flags.contains(name));
            self.cpu_features = FEATURES
                .iter()
                .filter(has)
                .map(|name| (*name).to_owned())
                .collect();
        }
        self.memory_bytes = procfs::Meminfo::current().ok().map(|memory| memory.mem_total);
        let text = |path| std::fs::read_to_string(path).ok();
        self.kernel = text("/proc/sys/kernel/osrelease").map(|release| release.trim().to_owned());
        let name = |release: String| {
            Some(
                release
                    .lines()
                    .find_map(|line| line.strip_prefix("PRETTY_NAME="))?
                    .to_owned(),
            )
        };
        if let Some(name) = text("/etc/os-release").and_then(name) {
            self.os = name.trim_matches('"').to_owned();
        }
    }
}

/// Processes that the kernel has killed since it was booted because memory ran out, that of a control group's limit
/// included; `None` where the system does not tell.
#[cfg(target_os = "linux")]
pub fn oom_kills() -> Option<u64> {
    let count = procfs::vmstat().ok()?.remove("oom_kill")?;
    u64::try_from(count).ok()
}

/// Unknown on this system.
#[cfg(not(target_os = "linux"))]
pub fn oom_kills() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known() {
        let machine = Machine::read(None);
        assert!(machine.cpus >= 1 && !machine.os.is_empty());
        #[cfg(target_os = "linux")]
        assert!(machine.memory_bytes.is_some_and(|bytes| bytes > 1 << 26) && machine.kernel.is_some());
    }
}
