//! Wires to the segment: in this process, or through a socket to a rack in another one.

use super::layout::{OUR_ADDRESS, OUR_MAC};
use super::segment::Segment;
use crate::watch::wire::{Frames, Received, Wire};
use pxe::mac::Mac;
use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Answers that wait to be taken; more than that and frames are lost, as in a full buffer of a card.
const WAITING_MAX: usize = 65_536;
/// Between two DHCP requests of firmware that finds nothing to boot.
const ASKS_EVERY: Duration = Duration::from_secs(4);
/// No frame on the wire is longer.
const FRAME_MAX: usize = 1_514;

/// Where the other end of the cable is.
#[derive(Debug, Clone)]
pub enum Cable {
    /// In this process.
    Here(Segment),
    /// Behind a socket.
    There(PathBuf),
}

impl Cable {
    /// Opens it.
    ///
    /// # Errors
    /// The socket is not there.
    pub fn open(&self) -> io::Result<Box<dyn Wire>> {
        Ok(match self {
            Cable::Here(segment) => {
                Box::new(Near { segment: segment.clone(), waiting: VecDeque::new(), lost: 0, asked_at: Instant::now() })
            }
            Cable::There(path) => Box::new(Far::open(path)?),
        })
    }
}

/// The segment in this process.
#[derive(Debug)]
struct Near {
    segment: Segment,
    waiting: VecDeque<Vec<u8>>,
    lost: usize,
    asked_at: Instant,
}

impl Near {
    fn arrives(&mut self, frame: Vec<u8>) {
        if self.waiting.len() >= WAITING_MAX {
            self.lost += 1;
        } else {
            self.waiting.push_back(frame);
        }
    }
}

impl Wire for Near {
    fn mac(&self) -> Mac {
        Mac(OUR_MAC)
    }

    fn address(&self) -> Ipv4Addr {
        OUR_ADDRESS
    }

    fn carrier(&mut self) -> bool {
        true
    }

    fn send(&mut self, frames: &Frames, _: &mut dyn FnMut(usize)) -> io::Result<()> {
        for frame in frames.iter() {
            if let Some(answer) = self.segment.answer(frame) {
                self.arrives(answer);
            }
        }
        Ok(())
    }

    fn receive(&mut self, wait: Duration, take: &mut dyn FnMut(&[u8])) -> io::Result<Received> {
        std::thread::sleep(wait);
        if self.asked_at.elapsed() >= ASKS_EVERY {
            self.asked_at = Instant::now();
            for frame in self.segment.boot_requests() {
                self.arrives(frame);
            }
        }
        let frames = self.waiting.len();
        for frame in self.waiting.drain(..) {
            take(&frame);
        }
        Ok(Received { frames, lost: std::mem::take(&mut self.lost), drained: true })
    }

    fn resets_by_itself(&self) -> bool {
        false
    }
}

/// The segment of another process: one datagram is one frame.
#[derive(Debug)]
struct Far {
    socket: UnixDatagram,
    own: PathBuf,
}

impl Far {
    fn open(path: &Path) -> io::Result<Far> {
        let own = path.with_extension(format!("{}.peer", std::process::id()));
        // A file of an earlier process of this number keeps nobody out.
        let _ = std::fs::remove_file(&own);
        let socket = UnixDatagram::bind(&own)?;
        socket.connect(path)?;
        socket.set_nonblocking(true)?;
        Ok(Far { socket, own })
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.own);
    }
}

impl Wire for Far {
    fn mac(&self) -> Mac {
        Mac(OUR_MAC)
    }

    fn address(&self) -> Ipv4Addr {
        OUR_ADDRESS
    }

    fn carrier(&mut self) -> bool {
        true
    }

    fn send(&mut self, frames: &Frames, unsent: &mut dyn FnMut(usize)) -> io::Result<()> {
        for (place, frame) in frames.iter().enumerate() {
            match self.socket.send(frame) {
                Ok(_) => {}
                // The other end takes them more slowly than they come: this one stays here.
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => unsent(place),
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    fn receive(&mut self, wait: Duration, take: &mut dyn FnMut(&[u8])) -> io::Result<Received> {
        std::thread::sleep(wait);
        let mut frame = [0; FRAME_MAX];
        let mut frames = 0;
        loop {
            match self.socket.recv(&mut frame) {
                Ok(length) => {
                    frames += 1;
                    take(frame.get(..length).unwrap_or_default());
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Received { frames, lost: 0, drained: true });
                }
                Err(why) => return Err(why),
            }
        }
    }

    fn resets_by_itself(&self) -> bool {
        false
    }
}

/// Lets a segment be reached through a socket, until the process ends. Answers go to whoever asked.
///
/// # Errors
/// The socket cannot be made.
pub fn lend(segment: Segment, path: &Path) -> io::Result<()> {
    let socket = Arc::new(UnixDatagram::bind(path)?);
    let last = Arc::new(std::sync::Mutex::new(None::<PathBuf>));
    let (asking, towards, requests) = (socket.clone(), last.clone(), segment.clone());
    std::thread::Builder::new().name("boot-requests".to_owned()).spawn(move || {
        loop {
            std::thread::sleep(ASKS_EVERY);
            let to = towards.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            for frame in requests.boot_requests() {
                if let Some(to) = &to {
                    // Nobody listens: nobody hears it, as on any network.
                    let _ = asking.send_to(&frame, to);
                }
            }
        }
    })?;
    std::thread::Builder::new().name("segment".to_owned()).spawn(move || {
        let mut frame = [0; FRAME_MAX];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut frame) else { return };
            let Some(from) = from.as_pathname() else { continue };
            *last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(from.to_owned());
            if let Some(answer) = segment.answer(frame.get(..length).unwrap_or_default()) {
                let _ = socket.send_to(&answer, from);
            }
        }
    })?;
    Ok(())
}
