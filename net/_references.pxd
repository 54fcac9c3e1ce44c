# The types that Cython needs to compile _references.py.

cimport cython

from net._link cimport Link as TheLink
from net._window cimport Window as TheWindow
from tasklets._core cimport channel


cdef class RemoteChannel(channel):
    cdef public object _addresses
    cdef public bytes _head
    cdef public bytes _home
    cdef public bytes _id
    cdef public dict _introducers
    cdef public object _late_error
    cdef public TheLink _link
    cdef public object _node
    cdef public object _offers
    cdef public dict _receivers
    cdef public int _rights
    cdef public dict _unanswered
    cdef public TheWindow _window

    @cython.locals(window=TheWindow, link=TheLink, size=Py_ssize_t)
    cpdef object send(self, value)
    cpdef object _send(self, value)
    @cython.locals(size=Py_ssize_t)
    cpdef object _send_on_credit(self, TheLink link, TheWindow window, value)
