//! Moves committed pages from the log to the database in the background, so that no write pays for it.

use super::Shared;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Frames in the log that make a checkpoint worth while.
pub(super) const FRAMES: u32 = 1_000;

/// The background thread and the bell that wakes it.
pub(super) struct Checkpointer {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Bell {
    rung: Mutex<Call>,
    heard: Condvar,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Call {
    #[default]
    Rest,
    Work,
    Stop,
}

impl Checkpointer {
    /// Starts the thread; it works for `shared` until stopped.
    pub(super) fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let bell = Arc::new(Bell::default());
        let heard = Arc::clone(&bell);
        let thread = std::thread::Builder::new().name("llmspell-checkpoint".into()).spawn(move || {
            while heard.wait() == Call::Work {
                // What fails now (a full disk, a busy file) is tried again after the next commit.
                let _ = shared.checkpoint();
            }
        })?;
        Ok(Self { bell, thread: Some(thread) })
    }

    /// Asks for a checkpoint soon.
    pub(super) fn wake(&self) {
        self.bell.ring(Call::Work);
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(&mut self) {
        self.bell.ring(Call::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook; nothing more can be done about it here.
            let _ = thread.join();
        }
    }
}

impl Bell {
    fn ring(&self, call: Call) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        if *rung != Call::Stop && *rung != call {
            *rung = call;
            self.heard.notify_one();
        }
    }

    /// The next call; `Stop` stays.
    fn wait(&self) -> Call {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rung = self.heard.wait_while(rung, |call| *call == Call::Rest).unwrap_or_else(PoisonError::into_inner);
        let call = *rung;
        if call == Call::Work {
            *rung = Call::Rest;
        }
        call
    }
}
