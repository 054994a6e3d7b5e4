//! Messages and streams over any wire: raw Ethernet, UDP, TCP and Unix sockets, with one server, one client and one
//! protocol.

pub mod carrier;
