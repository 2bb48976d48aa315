//! Loads, attaches, pins and removes the programs and maps.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::{Path, PathBuf},
};

use agent_ebpf::{SCHEMA, steering::SteerCounts};
use aya::{
    Btf, Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues, RingBuf},
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSock, CgroupSockAddr, Iter, Program, ProgramError,
        SkLookup,
        links::{FdLink, PinnedLink},
    },
    util::nr_cpus,
};
use aya_log::EbpfLogger;

use super::{
    DatapathError, Events,
    error::{Named as _, program_error},
    held::Held,
};
use crate::service::ServiceId;

/// The object that `cargo xtask build` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("AGENT_EBPF_OBJECT"));

/// Every program that is attached for good, by its name in the object and in the pin directory.
pub(super) const ATTACHED: [&str; 5] =
    ["steer", "share_bind4", "share_bind6", "refuse_multipath", "track_flows"];

/// Walks the sockets on demand; never attached for good.
pub(super) const ITERATOR: &str = "adopt_sockets";

/// The loaded object and where it is pinned.
#[derive(Debug)]
pub(super) struct Kernel {
    ebpf: Ebpf,
    pins: Pins,
    held: Held,
}

/// The kernel programs' own log lines, forwarded to `log`.
pub struct KernelLogs {
    logger: EbpfLogger<&'static dyn log::Log>,
}

impl Kernel {
    pub(super) fn open(
        pin_dir: &Path,
        cgroup: &File,
        generation_level: u32,
    ) -> Result<Self, DatapathError> {
        let (mut kernel, btf) = Self::create_maps(pin_dir, generation_level)?;
        kernel.load_iterator(&btf)?;
        for program in ATTACHED {
            kernel.attach_unless_pinned(program, cgroup, &btf)?;
        }
        kernel.held = Held::open(kernel.pin_directories())?;
        Ok(kernel)
    }

    /// The first half of [`Self::open`]: all maps are there, and no program is loaded.
    pub(super) fn create_maps(
        pin_dir: &Path,
        generation_level: u32,
    ) -> Result<(Self, Btf), DatapathError> {
        let pins = Pins::create(pin_dir)?;
        let btf = Btf::from_sys_fs().map_err(DatapathError::KernelTypes)?;
        let ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .default_map_pin_directory(pins.maps())
            // The log ring is pinned too, so that a later agent still reads what adopted programs write.
            .map_pin_path("AYA_LOGS", pins.maps().join("AYA_LOGS"))
            .override_global("GENERATION_LEVEL", &generation_level, true)
            .load(OBJECT)
            .map_err(|source| DatapathError::Object(Box::new(source)))?;
        Ok((Self { ebpf, pins, held: Held::default() }, btf))
    }

    pub(super) fn hash<K: Pod, V: Pod>(
        &mut self,
        map: &'static str,
    ) -> Result<HashMap<MapData, K, V>, DatapathError> {
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
        let path = self.pins.maps().join(map);
        let data = MapData::from_pin(&path).named("open", map)?;
        data.fd().as_fd().try_clone_to_owned().map_err(|source| DatapathError::Pin {
            operation: "open",
            path,
            source,
        })
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

    /// A file that runs `adopt_sockets` over every socket of this network namespace as it is read.
    pub(super) fn iterate(&mut self) -> Result<File, DatapathError> {
        let iterator: &mut Iter = program(&mut self.ebpf, ITERATOR)?;
        let link = iterator.attach().map_err(program_error("attach", ITERATOR))?;
        let link = iterator.take_link(link).map_err(program_error("attach", ITERATOR))?;
        link.into_file().map_err(program_error("run", ITERATOR))
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
        [self.pins.maps(), self.pins.links()]
    }

    pub(super) fn mend_pins(&self) -> Result<Vec<PathBuf>, DatapathError> {
        self.held.mend()
    }

    /// Detaches first: a program that is still attached must find its maps whole.
    pub(super) fn remove(self) -> Result<(), DatapathError> {
        let Self { ebpf, pins, held } = self;
        drop(held);
        drop(ebpf);
        pins.remove()
    }

    fn take(&mut self, map: &'static str) -> Map {
        self.ebpf
            .take_map(map)
            .expect("every map is in the object that we embed, and is taken once")
    }

    pub(super) fn load_iterator(&mut self, btf: &Btf) -> Result<(), DatapathError> {
        let iterator: &mut Iter = program(&mut self.ebpf, ITERATOR)?;
        iterator.load("tcp", btf).map_err(program_error("load", ITERATOR))
    }

    pub(super) fn attach_unless_pinned(
        &mut self,
        name: &'static str,
        cgroup: &File,
        btf: &Btf,
    ) -> Result<(), DatapathError> {
        let pin = self.pins.links().join(name);
        if pin.exists() {
            PinnedLink::from_pin(&pin).map_err(program_error("adopt the pinned link of", name))?;
            return Ok(());
        }
        let link = match name {
            "steer" => self.attach_steer(name),
            "track_flows" => self.attach_track_flows(name, btf),
            "refuse_multipath" => self.attach_refuse_multipath(name, cgroup),
            _ => self.attach_share_bind(name, cgroup),
        }?;
        link.pin(&pin).map_err(program_error("pin the link of", name))?;
        Ok(())
    }

    fn attach_steer(&mut self, name: &'static str) -> Result<FdLink, DatapathError> {
        let failed = || program_error("attach", name);
        let steer: &mut SkLookup = program(&mut self.ebpf, name)?;
        steer.load().map_err(program_error("load", name))?;
        // Of the thread, which may have left the process's.
        let netns = File::open("/proc/thread-self/ns/net")
            .map_err(program_error("open the network namespace for", name))?;
        let link = steer.attach(netns).map_err(failed())?;
        steer.take_link(link).map(Into::into).map_err(failed())
    }

    fn attach_track_flows(
        &mut self,
        name: &'static str,
        btf: &Btf,
    ) -> Result<FdLink, DatapathError> {
        let failed = || program_error("attach", name);
        let tracepoint: &mut BtfTracePoint = program(&mut self.ebpf, name)?;
        tracepoint.load("inet_sock_set_state", btf).map_err(program_error("load", name))?;
        let link = tracepoint.attach().map_err(failed())?;
        tracepoint.take_link(link).map(Into::into).map_err(failed())
    }

    fn attach_refuse_multipath(
        &mut self,
        name: &'static str,
        cgroup: &File,
    ) -> Result<FdLink, DatapathError> {
        let failed = || program_error("attach", name);
        let hook: &mut CgroupSock = program(&mut self.ebpf, name)?;
        hook.load().map_err(program_error("load", name))?;
        let link = hook.attach(cgroup, CgroupAttachMode::Single).map_err(failed())?;
        hook.take_link(link).map_err(failed())?.try_into().map_err(program_error("attach", name))
    }

    fn attach_share_bind(
        &mut self,
        name: &'static str,
        cgroup: &File,
    ) -> Result<FdLink, DatapathError> {
        let failed = || program_error("attach", name);
        let hook: &mut CgroupSockAddr = program(&mut self.ebpf, name)?;
        hook.load().map_err(program_error("load", name))?;
        let link = hook.attach(cgroup, CgroupAttachMode::Single).map_err(failed())?;
        hook.take_link(link).map_err(failed())?.try_into().map_err(program_error("attach", name))
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

fn program<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, DatapathError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).expect("every program is in the object that we embed");
    program.try_into().map_err(program_error("find", name))
}

/// The pin directory: `vN/maps/NAME` and `vN/links/NAME`, all `0700`.
#[derive(Debug)]
struct Pins {
    root: PathBuf,
}

impl Pins {
    fn create(root: &Path) -> Result<Self, DatapathError> {
        let pins = Self { root: root.to_owned() };
        make_directory(root)?;
        if !is_bpf(root).map_err(|source| pin_error("examine", root, source))? {
            return Err(DatapathError::NoBpfFileSystem(root.to_owned()));
        }
        pins.refuse_other_schema()?;
        for directory in [pins.version(), pins.maps(), pins.links()] {
            make_directory(&directory)?;
        }
        Ok(pins)
    }

    fn version(&self) -> PathBuf {
        self.root.join(format!("v{SCHEMA}"))
    }

    fn maps(&self) -> PathBuf {
        self.version().join("maps")
    }

    fn links(&self) -> PathBuf {
        self.version().join("links")
    }

    fn refuse_other_schema(&self) -> Result<(), DatapathError> {
        let ours = format!("v{SCHEMA}");
        for entry in
            fs::read_dir(&self.root).map_err(|source| pin_error("read", &self.root, source))?
        {
            let name = entry.map_err(|source| pin_error("read", &self.root, source))?.file_name();
            let name = name.to_string_lossy();
            if name != ours {
                let found = name.trim_start_matches('v').to_owned();
                return Err(DatapathError::OtherSchema {
                    path: self.root.clone(),
                    found,
                    known: SCHEMA,
                });
            }
        }
        Ok(())
    }

    fn remove(&self) -> Result<(), DatapathError> {
        for directory in [self.links(), self.maps()] {
            for entry in
                fs::read_dir(&directory).map_err(|source| pin_error("read", &directory, source))?
            {
                let path = entry.map_err(|source| pin_error("read", &directory, source))?.path();
                fs::remove_file(&path).map_err(|source| pin_error("remove", &path, source))?;
            }
        }
        for directory in [self.links(), self.maps(), self.version(), self.root.clone()] {
            fs::remove_dir(&directory).map_err(|source| pin_error("remove", &directory, source))?;
        }
        Ok(())
    }
}

pub(super) fn make_directory(path: &Path) -> Result<(), DatapathError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| pin_error("create", path, source))
}

fn is_bpf(path: &Path) -> io::Result<bool> {
    const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
    Ok(rustix::fs::statfs(path)?.f_type as u64 == BPF_FS_MAGIC)
}

pub(super) fn pin_error(operation: &'static str, path: &Path, source: io::Error) -> DatapathError {
    DatapathError::Pin { operation, path: path.to_owned(), source }
}
