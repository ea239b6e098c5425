//! The terminal while it is ours, and as it was when it is not: after an end, an error and a panic.

use std::io::{self, Stdout, stdout};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use super::draw::{Colours, draw};
use super::state::State;

/// Whether the terminal has to be given back. It is one for the whole process.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// The terminal, all of it; given back when dropped.
#[derive(Debug)]
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    colours: Colours,
}

impl Screen {
    /// Takes the terminal. A panic of any thread gives it back before it tells why.
    ///
    /// # Errors
    ///
    /// There is none, or it is gone.
    pub fn open(colours: Colours) -> io::Result<Screen> {
        HOOK.call_once(|| {
            let tell = panic::take_hook();
            panic::set_hook(Box::new(move |what| {
                give_back();
                tell(what);
            }));
        });
        IS_TAKEN.store(true, Ordering::SeqCst);
        let opened = enable_raw_mode()
            .and_then(|()| execute!(stdout(), EnterAlternateScreen))
            .and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        match opened {
            Ok(terminal) => Ok(Screen { terminal, colours }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Shows a state, in the size that the terminal has now.
    ///
    /// # Errors
    ///
    /// The terminal is gone.
    pub fn show(&mut self, state: &State) -> io::Result<()> {
        self.terminal.draw(|frame| draw(state, self.colours, frame)).map(|_| ())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        // A terminal that is gone needs nothing back.
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}
