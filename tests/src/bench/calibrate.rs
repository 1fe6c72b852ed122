//! Measures the overhead of the links themselves: the time of a plain copy from one host to
//! another, compared with the least possible time.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use serde_json::json;

use super::measure::rate;
use super::options;
use super::topology::{self, Host, Rates, Topology};
use super::{print_line, stop};

pub(super) fn execute(options: &options::Calibrate) -> anyhow::Result<()> {
    topology::check()?;
    let program = std::env::current_exe().context("this program has no path")?;
    let rates = Rates { up: options.up, down: options.down };
    let topology = Topology::shaped(&[rates, rates], !options.no_offload)?;
    let [sender, receiver] = &topology.hosts[..] else { bail!("two hosts were asked for") };
    let copy = |host: &Host, role: &str, address: SocketAddrV4| {
        let mut command = Command::new(&program);
        command.args(["copy", role, &address.to_string(), "--mib", &options.mib.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        host.inside(|| command.spawn())?.map(Process).context("the copy does not start")
    };
    let mut receiving = copy(receiver, "--listen", receiver.address)?;
    let mut line = [0];
    receiving.0.stdout.as_mut().context("a copy has a stdout")?.read_exact(&mut line)?;
    let before = topology.sent_by([0])?;
    let mut sending = copy(sender, "--connect", receiver.address)?;
    while sending.0.try_wait()?.is_none() {
        stop::pause(std::time::Duration::from_millis(20))?;
    }
    let mut text = String::new();
    sending.0.stdout.as_mut().context("a copy has a stdout")?.read_to_string(&mut text)?;
    let seconds: f64 = text.trim().parse().context("the copy failed")?;
    let bytes = f64::from(options.mib) * f64::from(1 << 20);
    let bound = bytes / rate(options.up.min(options.down));
    let sent =
        topology.sent_by([0])?.zip(before).map(|(now, before)| (now - before) as f64 / bytes);
    print_line(&json!({
        "seconds": seconds,
        "bound_seconds": bound,
        "ratio": seconds / bound,
        "sender_copies": sent,
    }))
}

/// A process that is killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that the process is already gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs one end of the copy. The receiver prints a line when it listens, and confirms to the sender
/// when it has everything. The sender then prints the seconds that the copy took.
pub(super) fn copy(options: &options::Copy) -> anyhow::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    let total = u64::from(options.mib) << 20;
    if let Some(address) = options.connect {
        let mut stream = TcpStream::connect(address)?;
        let start = Instant::now();
        for _ in 0..total / buffer.len() as u64 {
            stream.write_all(&buffer)?;
        }
        stream.shutdown(Shutdown::Write)?;
        stream.read_exact(&mut buffer[..1])?;
        println!("{}", start.elapsed().as_secs_f64());
        return Ok(());
    }
    let listener = TcpListener::bind(options.listen.context("one end listens")?)?;
    println!();
    let (mut stream, _) = listener.accept()?;
    let mut received = 0;
    loop {
        match stream.read(&mut buffer)? as u64 {
            0 => break,
            read => received += read,
        }
    }
    ensure!(received == total, "{received} of {total} bytes came");
    Ok(stream.write_all(&[1])?)
}
