//! Ends a run in which one input takes for ever, or all memory there is.

use std::{
    fmt::Debug,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Looks at what is being tried, from a thread of its own, until it is dropped.
pub(super) struct Watchdog {
    now: Arc<Mutex<Option<Tried>>>,
    seed: Arc<Mutex<u64>>,
    _end: Sender<()>,
}

struct Tried {
    since: Instant,
    input: Box<dyn Debug + Send>,
}

impl Watchdog {
    pub(super) fn start(target: &str) -> Self {
        let (now, seed) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(0)));
        let (end, ended) = channel::<()>();
        let (looked_at, of, target) = (Arc::clone(&now), Arc::clone(&seed), target.to_owned());
        thread::spawn(move || {
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let now = looked_at.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(Tried { since, input }) = now.as_ref() else { continue };
                if since.elapsed() > MOST {
                    let seed = of.lock().unwrap_or_else(PoisonError::into_inner);
                    eprintln!("{target}: after {MOST:?} there is no end of {input:?}");
                    eprintln!("again: AGENT_FUZZ_SEED={seed} cargo test -p agent --lib fuzz");
                    std::process::abort();
                }
            }
        });
        Self { now, seed, _end: end }
    }

    pub(super) fn note_seed(&self, seed: u64) {
        *self.seed.lock().unwrap_or_else(PoisonError::into_inner) = seed;
    }

    /// Does something with an input. One that panics is over too.
    pub(super) fn watch<I, T>(&self, input: &I, act: impl FnOnce() -> T) -> T
    where
        I: Clone + Debug + Send + 'static,
    {
        let tried = Tried { since: Instant::now(), input: Box::new(input.clone()) };
        self.set(Some(tried));
        let result = act();
        self.set(None);
        result
    }

    fn set(&self, tried: Option<Tried>) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = tried;
    }
}

/// For a process that does nothing else: an allocation beyond this ends it.
pub(super) fn bound_memory() {
    const MOST: u64 = 4 << 30;
    let Rlimit { maximum, .. } = getrlimit(Resource::As);
    let most = maximum.map_or(MOST, |maximum| maximum.min(MOST));
    setrlimit(Resource::As, Rlimit { current: Some(most), maximum }).unwrap();
}

const LOOK: Duration = Duration::from_secs(1);

/// Others may need all processors of the machine for a while.
const MOST: Duration = Duration::from_secs(20);
