//! The loaded object: its maps by name, its programs, and where both are pinned.

use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use agent_ebpf::{socket::FlowRequest, steering::SteerCounts};
use agent_terms::ServiceId;
use aya::{
    Btf, Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues, RingBuf},
    programs::{
        ProgramError, ProgramFd, SchedClassifier, SkReuseport, TestRun as _, TestRunOptions,
    },
    util::nr_cpus,
};
use aya_log::EbpfLogger;

use super::{
    DatapathError, Events,
    error::{Named as _, program_error},
    held::Held,
    pins::Pins,
    place::Place,
    programs::{
        self, ADOPT_FLOW, ATTACHED, COMFORTS, ENLIST, ITERATOR, LIST_PROCESSES, LIST_SOCKETS,
        MIGRATE, ON_DEMAND, WITHOUT_COMFORTS,
    },
    table::Table,
    types,
};
use crate::sys;

/// The object that `cargo xtask build` made.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("AGENT_EBPF_OBJECT"));

/// Every map that is pinned, by its name in the object.
pub const MAPS: [&str; 16] = [
    "ADOPTIONS",
    "AYA_LOGS",
    "BIND_RULES",
    "ENDPOINTS",
    "ENLISTMENTS",
    "EVENTS",
    "FLOWS",
    "LISTENERS",
    "LISTENER_SETS",
    "LOST_REPORTS",
    "MEMBERS",
    "MEMBER_COUNTS",
    "MOVED_BINDS",
    "SERVICES",
    "STEERED",
    "TAGS",
];

/// `struct __sk_buff` up to `ifindex`, which is its last member here.
const CONTEXT_SIZE: usize = 44;
const INTERFACE: std::ops::Range<usize> = 40..44;
/// A test run happens on it, and the kernel refuses to be told so (`convert___skb_to_skb`).
const LOOPBACK: u32 = 1;

/// The loaded object and where it is pinned.
#[derive(Debug)]
pub(super) struct Kernel {
    ebpf: Ebpf,
    pins: Pins,
    held: Held,
    /// Those that are loaded and yet to be attached.
    comforts: Vec<&'static str>,
}

/// The kernel programs' own log lines, forwarded to `log`.
pub struct KernelLogs {
    logger: EbpfLogger<&'static dyn log::Log>,
}

impl Kernel {
    /// Of pins that are whole: the maps are used as they are, and the programs replaced by ours.
    pub(super) fn adopt(pin_dir: &Path, cgroup: &File) -> Result<Self, DatapathError> {
        let (mut kernel, btf) = Self::create_maps(Pins::adopt(pin_dir))?;
        kernel.load_all(&btf)?;
        for program in ATTACHED {
            kernel.put_in_place(program, cgroup)?;
        }
        kernel.offer_comforts(cgroup);
        kernel.hold()?;
        Ok(kernel)
    }

    /// With maps of its own, and no program in its place yet.
    pub(super) fn begin(pin_dir: &Path, place: Place) -> Result<Self, DatapathError> {
        let (mut kernel, btf) = Self::create_maps(Pins::begin(pin_dir, place)?)?;
        match kernel.load_all(&btf) {
            Ok(()) => Ok(kernel),
            Err(error) => {
                kernel.abandon();
                Err(error)
            }
        }
    }

    /// All programs before any is put in its place: one that the verifier refuses changes nothing.
    fn load_all(&mut self, btf: &Btf) -> Result<(), DatapathError> {
        ATTACHED
            .into_iter()
            .chain(ON_DEMAND)
            .chain([MIGRATE])
            .try_for_each(|program| self.load(program, btf))?;
        for program in COMFORTS {
            match self.load(program, btf) {
                Ok(()) => self.comforts.push(program),
                Err(error) => tracing::warn!(%error, program, "not loaded: {WITHOUT_COMFORTS}"),
            }
        }
        Ok(())
    }

    /// All maps are there, and no program is loaded.
    pub(super) fn create_maps(pins: Pins) -> Result<(Self, Btf), DatapathError> {
        match Self::maps_in(&pins) {
            Ok((ebpf, btf)) => {
                Ok((Self { ebpf, pins, held: Held::default(), comforts: Vec::new() }, btf))
            }
            Err(error) => {
                pins.abandon();
                Err(error)
            }
        }
    }

    fn maps_in(pins: &Pins) -> Result<(Ebpf, Btf), DatapathError> {
        let btf = Btf::from_sys_fs().map_err(DatapathError::KernelTypes)?;
        let layout = types::kernel_layout().map_err(DatapathError::KernelLayout)?;
        // Of the thread, which may have left the process's; the kernel's own number has as many bits.
        let namespace = fs::metadata("/proc/thread-self/ns/net")
            .map_err(program_error("find the network namespace for", "track_flows"))?
            .ino() as u32;
        let ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .default_map_pin_directory(pins.maps())
            // The log ring is pinned too, so that a later agent still reads what adopted programs write.
            .map_pin_path("AYA_LOGS", pins.maps().join("AYA_LOGS"))
            .override_global("KERNEL_LAYOUT", &layout, true)
            .override_global("NETWORK_NAMESPACE", &namespace, true)
            .load(OBJECT)
            .map_err(|source| DatapathError::Object(Box::new(source)))?;
        let mut pinned: Vec<_> =
            ebpf.maps().map(|(name, _)| name).filter(|name| !name.starts_with('.')).collect();
        pinned.sort_unstable();
        debug_assert_eq!(pinned, MAPS, "the maps of the object");
        Ok((ebpf, btf))
    }

    pub(super) fn table<K: Pod, V: Pod>(
        &mut self,
        map: &'static str,
    ) -> Result<Table<K, V>, DatapathError> {
        let opened = HashMap::try_from(self.take(map)).named("open", map)?;
        Ok(Table::new(map, opened))
    }

    pub(super) fn array<V: Pod>(
        &mut self,
        map: &'static str,
    ) -> Result<Array<MapData, V>, DatapathError> {
        self.take(map).try_into().named("open", map)
    }

    pub(super) fn per_cpu<V: Pod>(
        &mut self,
        map: &'static str,
    ) -> Result<PerCpuArray<MapData, V>, DatapathError> {
        self.take(map).try_into().named("open", map)
    }

    /// A descriptor of a map that is only handed on.
    pub(super) fn descriptor(&self, map: &'static str) -> Result<OwnedFd, DatapathError> {
        self.pins.descriptor(map)
    }

    pub(super) fn take_events(&mut self) -> Result<Events, DatapathError> {
        let ring = RingBuf::try_from(self.take("EVENTS")).named("open", "EVENTS")?;
        let lost = Array::try_from(self.take("LOST_REPORTS")).named("open", "LOST_REPORTS")?;
        Ok(Events::new(ring, lost))
    }

    pub(super) fn take_logs(&mut self) -> Result<KernelLogs, DatapathError> {
        let logger =
            EbpfLogger::init(&mut self.ebpf).map_err(program_error("read the log of", "all"))?;
        Ok(KernelLogs { logger })
    }

    /// A file that runs `adopt_listeners` over the sockets of this network namespace as it is read.
    pub(super) fn iterate(&self) -> Result<File, DatapathError> {
        self.run_iterator(ITERATOR)
    }

    /// A file that runs `enlist` over the threads of this PID namespace as it is read.
    pub(super) fn walk_tasks(&self) -> Result<File, DatapathError> {
        self.run_iterator(ENLIST)
    }

    /// A link that runs `list_processes`, for whoever asks which processes there are.
    pub(super) fn link_processes(&self) -> Result<OwnedFd, DatapathError> {
        self.link_iterator(LIST_PROCESSES)
    }

    /// A link that runs `list_sockets`, for whoever asks who has which sockets open.
    pub(super) fn link_sockets(&self) -> Result<OwnedFd, DatapathError> {
        self.link_iterator(LIST_SOCKETS)
    }

    /// The program itself, to run it over one process.
    pub(super) fn list_sockets(&self) -> Result<OwnedFd, DatapathError> {
        let duplicate = self.iterator(LIST_SOCKETS)?.as_fd().try_clone_to_owned();
        duplicate.map_err(program_error("keep", LIST_SOCKETS))
    }

    fn run_iterator(&self, name: &'static str) -> Result<File, DatapathError> {
        let link = self.link_iterator(name)?;
        sys::bpf::run_iterator(link).map_err(program_error("run", name))
    }

    fn link_iterator(&self, name: &'static str) -> Result<OwnedFd, DatapathError> {
        sys::bpf::link_iterator(self.iterator(name)?).map_err(program_error("attach", name))
    }

    fn iterator(&self, name: &'static str) -> Result<&ProgramFd, DatapathError> {
        let iterator = self.ebpf.program(name).expect("it is in the object that we embed");
        iterator.fd().map_err(program_error("find", name))
    }

    /// Runs `adopt_flow` once, and returns what it answers.
    pub(super) fn run_on_flow(
        &self,
        request: &FlowRequest,
        interface: u32,
    ) -> Result<i32, DatapathError> {
        let failed = || program_error("run", ADOPT_FLOW);
        let program = self.ebpf.program(ADOPT_FLOW).expect("it is in the object that we embed");
        let program: &SchedClassifier = program.try_into().map_err(failed())?;
        let mut context = [0; CONTEXT_SIZE];
        context[INTERFACE].copy_from_slice(&interface.to_ne_bytes());
        let result = program.test_run(TestRunOptions {
            data_in: Some(request.as_bytes()),
            ctx_in: (interface > LOOPBACK).then_some(&context),
            ..TestRunOptions::new()
        });
        Ok(result.map_err(failed())?.return_value.cast_signed())
    }

    /// How often a program of ours was not run, because it was running on that core.
    pub(super) fn missed_runs(&self, program: &'static str) -> Result<u64, DatapathError> {
        let failed = || program_error("examine", program);
        let found = self.ebpf.program(program).expect("it is in the object that we embed");
        let descriptor = found.fd().map_err(failed())?.as_fd().as_raw_fd();
        let path = format!("/proc/self/fdinfo/{descriptor}");
        let about = fs::read_to_string(path).map_err(ProgramError::IOError).map_err(failed())?;
        let missed = about.lines().find_map(|line| line.strip_prefix("recursion_misses:"));
        // A kernel that does not count them has none to tell of.
        Ok(missed.and_then(|missed| missed.trim().parse().ok()).unwrap_or_default())
    }

    pub(super) fn reset_counts(
        &self,
        counts: &mut PerCpuArray<MapData, SteerCounts>,
        service: ServiceId,
    ) -> Result<(), DatapathError> {
        let cpus = nr_cpus().map_err(|(_, source)| DatapathError::Walk(source))?;
        let zero = PerCpuValues::try_from(vec![SteerCounts::default(); cpus])
            .map_err(DatapathError::Walk)?;
        counts.set(service.0, zero, 0).named("write", "STEERED")
    }

    pub(super) fn pin_directories(&self) -> [PathBuf; 2] {
        [self.pins.maps(), self.pins.links().to_owned()]
    }

    pub(super) fn mend_pins(&self) -> Result<Vec<PathBuf>, DatapathError> {
        self.held.mend()
    }

    /// Detaches first: a program that is still attached must find its maps whole.
    pub(super) fn remove(self) -> Result<(), DatapathError> {
        let Self { ebpf, pins, held, comforts: _ } = self;
        drop(held);
        drop(ebpf);
        pins.remove()
    }

    fn take(&mut self, map: &'static str) -> Map {
        self.ebpf
            .take_map(map)
            .expect("every map is in the object that we embed, and is taken once")
    }

    pub(super) fn load(&mut self, program: &'static str, btf: &Btf) -> Result<(), DatapathError> {
        programs::load(&mut self.ebpf, program, btf)
    }

    /// Attaches a loaded program, or puts it in the place of the one that is attached.
    pub(super) fn put_in_place(
        &mut self,
        program: &'static str,
        cgroup: &File,
    ) -> Result<(), DatapathError> {
        programs::put_in_place(&mut self.ebpf, program, &self.pins, cgroup)
    }

    /// Attaches the programs that are comfort. A kernel that refuses one is no reason not to serve.
    pub(super) fn offer_comforts(&mut self, cgroup: &File) {
        for program in std::mem::take(&mut self.comforts) {
            if let Err(error) = self.put_in_place(program, cgroup) {
                tracing::warn!(%error, program, "not attached: {WITHOUT_COMFORTS}");
            }
        }
    }

    /// Has what was built take the place of what was pinned before.
    pub(super) fn finish(&mut self) -> Result<(), DatapathError> {
        self.pins.finish()?;
        self.hold()
    }

    fn hold(&mut self) -> Result<(), DatapathError> {
        self.held = Held::open(self.pin_directories())?;
        Ok(())
    }

    /// Gives `migrate` to the reuseport group that this socket is in, in place of any program that the group had.
    pub(super) fn attach_migrate(&mut self, member: BorrowedFd<'_>) -> Result<(), DatapathError> {
        let migrate = self.ebpf.program_mut(MIGRATE).expect("it is in the object that we embed");
        let migrate: &mut SkReuseport =
            migrate.try_into().map_err(program_error("find", MIGRATE))?;
        migrate.attach(member).map_err(program_error("attach", MIGRATE))
    }

    /// Takes back, after a failure, what was made in vain.
    pub(super) fn abandon(self) {
        let Self { ebpf, pins, held: _, comforts: _ } = self;
        drop(ebpf);
        pins.abandon();
    }
}

impl KernelLogs {
    /// Forwards what has been written since the last call.
    pub fn flush(&mut self) {
        self.logger.flush();
    }
}

impl AsFd for KernelLogs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.logger.as_fd()
    }
}
