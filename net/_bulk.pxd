# The types that Cython needs to compile _bulk.py.

cimport cython

from net._landing cimport Landing as TheLanding, Spare as TheSpare


cdef class Outgoing:
    cdef public Py_ssize_t _active_bytes
    cdef public Py_ssize_t _credit
    cdef public unsigned long long _next
    cdef public dict _sizes
    cdef public object _streams
    cdef public object _waiting
    cdef public object limits
    cdef public Py_ssize_t pending_bytes


cdef class _Stream:
    cdef public object act
    cdef public TheLanding content
    cdef public object head
    cdef public Py_ssize_t received
    cdef public object seqno
    cdef public Py_ssize_t size
    cdef public object subject


cdef class Incoming:
    cdef public Py_ssize_t _active_bytes
    cdef public long _deferred
    cdef public object _limits
    cdef public unsigned long long _next
    cdef public Py_ssize_t _owed
    cdef public TheSpare _spare
    cdef public dict _streams
    cdef public dict in_line
