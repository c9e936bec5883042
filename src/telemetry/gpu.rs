//! What the machine's graphics cards do, as their driver tells.

/// A card at one instant. What its driver does not tell is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Card {
    /// When, on the caller's clock.
    pub at_ns: u64,
    /// Its number on this machine, as the driver counts.
    pub index: u32,
    /// What it is called.
    pub name: String,
    /// Share of the last sample period (a sixth of a second to a second) in which a kernel ran on it, in percent.
    pub utilisation_pct: Option<f64>,
    /// Memory in use, by anyone, in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory that it has, in bytes.
    pub memory_total_bytes: Option<u64>,
    /// Power drawn, in watts.
    pub power_w: Option<f64>,
    /// Energy since the driver was loaded, in joules.
    pub energy_j: Option<f64>,
    /// Temperature in degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Clock of its multiprocessors in MHz.
    pub sm_clock_mhz: Option<f64>,
    /// Clock of its memory in MHz.
    pub memory_clock_mhz: Option<f64>,
    /// Bytes per second that it received over PCIe, over the last 20 ms.
    pub pcie_rx_bytes_per_s: Option<f64>,
    /// Bytes per second that it sent over PCIe, over the last 20 ms.
    pub pcie_tx_bytes_per_s: Option<f64>,
    /// The processes that compute on it; absent where the driver does not tell.
    pub pids: Option<Vec<u32>>,
}

/// Cards that can be asked how they are.
pub trait Cards: std::fmt::Debug + Send {
    /// The names of the cards.
    fn names(&mut self) -> Vec<String>;

    /// The driver's version.
    fn driver(&self) -> Option<String>;

    /// Each card as it is now; one that cannot be asked is left out. `at_ns` becomes the time of all of them.
    fn look(&mut self, at_ns: u64) -> Vec<Card>;
}

/// NVIDIA's cards, by the driver's own library (NVML), which is loaded now; nothing where there is none.
#[cfg(target_os = "linux")]
pub fn nvidia() -> Option<Box<dyn Cards>> {
    use std::ffi::OsStr;

    // Drivers install the first name; the second comes with development packages.
    let nvml = ["libnvidia-ml.so.1", "libnvidia-ml.so"].iter().find_map(|name| {
        nvml_wrapper::Nvml::builder()
            .lib_path(OsStr::new(name))
            .init()
            .ok()
    });
    let mut nvidia = Nvidia(nvml?);
    (!nvidia.names().is_empty()).then(|| Box::new(nvidia) as Box<dyn Cards>)
}

/// The library is known on Linux alone.
#[cfg(not(target_os = "linux"))]
pub fn nvidia() -> Option<Box<dyn Cards>> {
    None
}

#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Nvidia(nvml_wrapper::Nvml);

#[cfg(target_os = "linux")]
impl Nvidia {
    fn devices(&self) -> impl Iterator<Item = (u32, nvml_wrapper::Device<'_>)> {
        let count = self.0.device_count().unwrap_or(0);
        (0..count).filter_map(|index| Some((index, self.0.device_by_index(index).ok()?)))
    }
}

#[cfg(target_os = "linux")]
impl Cards for Nvidia {
    fn names(&mut self) -> Vec<String> {
        self.devices().map(|(_, device)| name(&device)).collect()
    }

    fn driver(&self) -> Option<String> {
        self.0.sys_driver_version().ok()
    }

    fn look(&mut self, at_ns: u64) -> Vec<Card> {
        use nvml_wrapper::enum_wrappers::device::{Clock, PcieUtilCounter, TemperatureSensor};

        let card = |(index, device): (u32, nvml_wrapper::Device<'_>)| {
            let memory = device.memory_info().ok();
            let clock = |clock| device.clock_info(clock).ok().map(f64::from);
            // NVML counts KiB, milliwatts and millijoules.
            let pcie = |way| {
                device
                    .pcie_throughput(way)
                    .ok()
                    .map(|kib| f64::from(kib) * 1024.0)
            };
            let processes = device.running_compute_processes().ok();
            Card {
                at_ns,
                index,
                name: name(&device),
                utilisation_pct: device.utilization_rates().ok().map(|rates| rates.gpu.into()),
                memory_bytes: memory.as_ref().map(|memory| memory.used),
                memory_total_bytes: memory.as_ref().map(|memory| memory.total),
                power_w: device.power_usage().ok().map(|mw| f64::from(mw) / 1e3),
                energy_j: device.total_energy_consumption().ok().map(|mj| mj as f64 / 1e3),
                temperature_c: device.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
                sm_clock_mhz: clock(Clock::SM),
                memory_clock_mhz: clock(Clock::Memory),
                pcie_rx_bytes_per_s: pcie(PcieUtilCounter::Receive),
                pcie_tx_bytes_per_s: pcie(PcieUtilCounter::Send),
                pids: processes.map(|processes| processes.iter().map(|process| process.pid).collect()),
            }
        };
        self.devices().map(card).collect()
    }
}

#[cfg(target_os = "linux")]
fn name(device: &nvml_wrapper::Device<'_>) -> String {
    device.name().unwrap_or_else(|_| "unknown".into())
}
