# The types that Cython needs to compile _exports.py.

cimport cython

from net._grants cimport Grant as TheGrant
from net._link cimport Link as TheLink
from tasklets._core cimport channel as TheChannel


@cython.locals(where=TheChannel)
cpdef object accept(TheGrant grant, value, seqno, Py_ssize_t size)
cpdef object _defer(TheGrant granted, tuple frame, seqno, Py_ssize_t size)
cpdef object _deferred(TheGrant granted, tuple frame, seqno, Py_ssize_t size)
cpdef object _take_deferred(TheGrant granted, tuple frame, seqno, Py_ssize_t size)
@cython.locals(granted=TheGrant)
cpdef object _on_send(TheLink link, tuple frame)
