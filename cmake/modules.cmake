# SPDX-License-Identifier: Apache-2.0
# Programs that open modules (kernels/module.h) lend them their own copy of base, kernels and comm.
#
# A module leaves tp_*, kern_* and comm_* undefined and finds them in the program: one log, one last error, one count of
# allocations per process.  So such a program holds those libraries whole, not just what it calls itself.

# tp_module_host(TARGET): TARGET can open modules; they are built with it.  They lie beside the binary; programs elsewhere
# (tests) call kern_module_search(TPSERVE_MODULE_DIR) first.
function(tp_module_host target)
    set(libs $<TARGET_FILE:tp_base> $<TARGET_FILE:tp_kernels> $<TARGET_FILE:tp_comm>)
    target_link_options(${target} PRIVATE
        -Wl,--dynamic-list=${CMAKE_SOURCE_DIR}/cmake/modules.list
        -Wl,--whole-archive ${libs} -Wl,--no-whole-archive)
    target_link_libraries(${target} PRIVATE tp_comm tp_kernels tp_base)
    target_compile_definitions(${target} PRIVATE TPSERVE_MODULE_DIR="${CMAKE_BINARY_DIR}")
    set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${libs} ${CMAKE_SOURCE_DIR}/cmake/modules.list)
    add_dependencies(${target} tpserve_emu)
    if(TARGET tpserve_cuda)
        add_dependencies(${target} tpserve_cuda)
    endif()
endfunction()
