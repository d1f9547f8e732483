//! A server process on the loopback interface, and connections to it that threads share.

use crate::queue::Result;
use parking_lot::Mutex;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take until it answers, recovery of its files included.
const START_MAX: Duration = Duration::from_secs(120);
/// How long it may take to stop.
const STOP_MAX: Duration = Duration::from_secs(60);

/// The output of `program argument`, if there is such a program in the search path.
pub(super) fn ask(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).stderr(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A running server. It dies with this value.
pub(super) struct Server {
    child: Child,
    port: u16,
    idle: Mutex<Vec<Connection>>,
}

/// One connection.
pub(super) struct Connection {
    reader: BufReader<TcpStream>,
    /// What goes out with the next [`Connection::flush`].
    pub(super) out: Vec<u8>,
    /// Whether the protocol's opening, where it has one, is done.
    pub(super) is_greeted: bool,
    /// Where answers go, in a protocol that has addresses for that.
    pub(super) inbox: String,
}

impl Server {
    /// Starts `command` after `configure` told it the port, and waits until `is_ready` says so on a connection.
    pub(super) fn start(
        mut command: Command,
        configure: impl FnOnce(&mut Command, u16),
        is_ready: impl Fn(&mut Connection) -> Result<bool>,
    ) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        configure(&mut command, port);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut server = Self { child, port, idle: Mutex::new(Vec::new()) };
        let deadline = Instant::now() + START_MAX;
        loop {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("the server ended: {status}").into());
            }
            if server.with(&is_ready).is_ok_and(|ready| ready) {
                return Ok(server);
            }
            if Instant::now() > deadline {
                return Err("the server does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Runs `act` on a connection that no other thread uses meanwhile. A connection that failed is not used again.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        let idle = self.idle.lock().pop();
        let mut connection = idle.map_or_else(|| Connection::open(self.port), Ok)?;
        let done = act(&mut connection)?;
        self.idle.lock().push(connection);
        Ok(done)
    }

    /// Waits for the server to end, after it was told to.
    pub(super) fn wait(mut self) -> Result<()> {
        let deadline = Instant::now() + STOP_MAX;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err("the server does not stop".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Asks the server's process to end.
    pub(super) fn terminate(&self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already where it was told to; a failure leaves nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Connection {
    fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            reader: BufReader::with_capacity(1 << 16, stream),
            out: Vec::new(),
            is_greeted: false,
            inbox: String::new(),
        })
    }

    /// Sends what was put into `out`.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.reader.get_mut().write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Whether more comes within `wait`.
    pub(super) fn has_more(&mut self, wait: Duration) -> Result<bool> {
        if !self.reader.buffer().is_empty() {
            return Ok(true);
        }
        self.reader.get_ref().set_read_timeout(Some(wait))?;
        let come = match self.reader.fill_buf() {
            Ok(bytes) => Ok(!bytes.is_empty()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        };
        self.reader.get_ref().set_read_timeout(None)?;
        come
    }

    /// Reads a line, without its end.
    pub(super) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let line = line.strip_suffix("\r\n").ok_or("the server closed the connection")?;
        Ok(line.to_owned())
    }

    /// Reads `len` bytes and the end of line after them.
    pub(super) fn body(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut body = vec![0; len + 2];
        self.reader.read_exact(&mut body)?;
        body.truncate(len);
        Ok(body)
    }
}
