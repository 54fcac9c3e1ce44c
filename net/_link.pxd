# The types that Cython needs to compile _link.py.

cimport cython

from net._apart cimport Apart as TheApart
from net._bulk cimport Incoming as TheIncoming, Outgoing as TheOutgoing
from net._codec cimport Codec as TheCodec
from net._protocol cimport Protocol as TheProtocol
from net._session cimport Session as TheSession, size_of


cdef object _watcher


@cython.locals(size=Py_ssize_t)
cpdef Py_ssize_t bytes_of(pieces) except -1


cdef class Link:
    cdef object __weakref__
    cdef public long _aparts
    cdef public object _call_soon
    cdef public object _cancel_patience
    cdef public TheCodec _codec
    cdef public list _end_callbacks
    cdef public bint _end_of_turn_armed
    cdef public bint _large_left
    cdef public object _line
    cdef public long long _messages_left
    cdef public object _next_op
    cdef public list _outbox
    cdef public Py_ssize_t _outbox_bytes
    cdef public TheOutgoing _outgoing
    cdef public TheProtocol _protocol
    cdef public object _reconnecting
    cdef public object _recovery
    cdef public list _roomy
    cdef public Py_ssize_t _threshold
    cdef public object _transport
    cdef public object _unsent
    cdef public bint _writable
    cdef public bint _writing_failed
    cdef public object address
    cdef public object asked_for
    cdef public Py_ssize_t frame_bytes
    cdef public dict grants
    cdef public object identity
    cdef public TheIncoming incoming
    cdef public dict loans
    cdef public object lost
    cdef public long long messages_received
    cdef public long long messages_sent
    cdef public object node
    cdef public object opened
    cdef public bint opens
    cdef public dict operations
    cdef public double patience
    cdef public object peer
    cdef public bint refused
    cdef public dict requests
    cdef public object security
    cdef public TheSession session
    cdef public dict spawned
    cdef public dict unsettled
    cdef public object users
    cdef public dict verdicts
    cdef public object where
    cdef public object windows

    cpdef Py_ssize_t send(self, tuple frame) except -1
    cpdef Py_ssize_t send_unwatched(self, tuple frame) except -1
    @cython.locals(packed=bytes)
    cpdef Py_ssize_t send_value(self, bytes head, bytes channel_id, value) except -1
    @cython.locals(size=Py_ssize_t, exported=list)
    cpdef Py_ssize_t _queue(self, bytes packed, tuple frame) except -1
    @cython.locals(size=Py_ssize_t, is_first=bint)
    cpdef Py_ssize_t _send_apart(self, int kind, subject, TheApart apart) except -1
    cpdef Py_ssize_t send_message(self, tuple frame) except -1
    cpdef object notify(self, tuple frame)
    cpdef object tell_room(self, found)
    cpdef object _send_room(self)
    cpdef object _arm_end_of_turn(self)
    @cython.locals(session=TheSession)
    cpdef object _end_turn(self)
    @cython.locals(outgoing=TheOutgoing)
    cdef bint _has_batch(self) except -1
    @cython.locals(outbox=list)
    cpdef object _flush(self)
    @cython.locals(size=Py_ssize_t)
    cpdef list _gather(self, list pieces)
    cpdef object _next_batch(self)
    @cython.locals(size=Py_ssize_t)
    cpdef Py_ssize_t _serve(self) except -1
    @cython.locals(sent=Py_ssize_t)
    cpdef object _write(self, bytes data)
    @cython.locals(sent=Py_ssize_t)
    cpdef object _write_pieces(self, pieces)
    @cython.locals(size=Py_ssize_t, index=Py_ssize_t, rooms=list, frames=list, sizes=dict, protocol=TheProtocol)
    cpdef Py_ssize_t _read(self) except -1
