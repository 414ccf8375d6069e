//! Connections between regions, and what arrives on them.

use bytes::Bytes;
use tributary_region::Input;
use tributary_replication::Message;

use super::World;
use super::event::Event;
use super::node::name;
use crate::failure::{Checked, Violation};
use crate::network::Direction;

impl World {
    /// The number of a region by its name.
    pub(super) fn number(&self, region: &str) -> Option<usize> {
        (0..self.nodes.len()).find(|index| name(*index) == region)
    }

    pub(super) fn send(&mut self, node: usize, peer: &str, bytes: Bytes) {
        let Some(peer) = self.number(peer) else { return };
        let Some(connection) = self.network.connection(node, peer) else {
            return;
        };
        for copy in self.network.send(self.now_ms, (node, peer), bytes) {
            let (bytes, damaged) = (copy.bytes, copy.damaged);
            let event = Event::Deliver {
                direction: (node, peer),
                connection,
                bytes,
                damaged,
            };
            self.queue.plan(copy.at_ms, event);
        }
    }

    pub(super) fn deliver(
        &mut self,
        (from, to): Direction,
        connection: u64,
        bytes: &Bytes,
        damaged: bool,
    ) -> Checked {
        if self.network.connection(from, to) != Some(connection) || self.nodes[to].process.is_none() {
            self.network.counts.lost += 1;
            return Ok(());
        }
        let message = match Message::decode(bytes) {
            Ok(_) if damaged => {
                return Err(Violation::new(
                    "damage is noticed",
                    format!("r{} accepts damaged bytes", to + 1),
                ));
            }
            Ok(message) => message,
            Err(error) if damaged => {
                self.trace.add(
                    self.now_ms,
                    to,
                    format_args!("refuses bytes of {}: {error}", name(from)),
                    &[],
                );
                self.report.damaged_refused += 1;
                self.hang_up(to, from);
                return Ok(());
            }
            Err(error) => {
                let detail = format!("r{} cannot read a message of r{}: {error}", to + 1, from + 1);
                return Err(Violation::new("messages can be read", detail));
            }
        };
        self.step(
            to,
            Input::Message {
                peer: name(from),
                message,
            },
        )
    }

    /// Both ends of a pair that are up and can reach each other get a connection; otherwise it is tried again.
    pub(super) fn connect(&mut self, (a, b): Direction) -> Checked {
        let retry = self.rng.between(50, 300);
        self.queue.plan(self.now_ms + retry, Event::Connect((a, b)));
        let both_run = self.nodes[a].process.is_some() && self.nodes[b].process.is_some();
        let hanging = self
            .hanging
            .iter()
            .any(|(node, peer)| (*node, *peer) == (a, b) || (*node, *peer) == (b, a));
        if !both_run || hanging || self.network.connection(a, b).is_some() || !self.network.is_open(a, b) {
            return Ok(());
        }
        self.network.connect(a, b);
        self.trace
            .add(self.now_ms, a, format_args!("connected with {}", name(b)), &[]);
        let ends = if self.rng.percent(50) {
            [(a, b), (b, a)]
        } else {
            [(b, a), (a, b)]
        };
        for (node, peer) in ends {
            self.step(node, Input::Connected { peer: name(peer) })?;
        }
        Ok(())
    }

    /// Ends the connection of a pair; `node` learns of it now, the other a little later.
    pub(super) fn hang_up(&mut self, node: usize, peer: usize) {
        if !self.network.disconnect(node, peer) {
            return;
        }
        self.report.resets += 1;
        for (node, peer, delay_ms) in [(node, peer, 0), (peer, node, self.rng.between(0, 60))] {
            if self.nodes[node].process.is_some() {
                self.hanging.insert((node, peer));
                let boot = self.nodes[node].boot;
                self.queue
                    .plan(self.now_ms + delay_ms, Event::Hangup { node, boot, peer });
            }
        }
    }

    pub(super) fn hangup(&mut self, node: usize, peer: usize) -> Checked {
        self.hanging.remove(&(node, peer));
        self.trace.add(
            self.now_ms,
            node,
            format_args!("disconnected from {}", name(peer)),
            &[],
        );
        self.step(node, Input::Disconnected { peer: name(peer) })
    }
}
