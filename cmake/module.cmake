# Code that only parses, writes and calls others: compiled in half the time, and no slower where it matters.
set(brick_cold_options $<$<CONFIG:Release>:-O1>)

# brick_module(name [COLD] DEPS modules... USES public-libraries... PRIVATE libraries...)
# One static library a folder of src/brick; sources are globbed.
function(brick_module name)
  cmake_parse_arguments(ARG "COLD" "" "DEPS;USES;PRIVATE" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/brick/${name}/*.cc)
  add_library(brick_${name} STATIC ${sources})
  set_target_properties(brick_${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_include_directories(brick_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  list(TRANSFORM ARG_DEPS PREPEND brick_)
  target_link_libraries(brick_${name} PUBLIC ${ARG_DEPS} ${ARG_USES} PRIVATE ${ARG_PRIVATE} brick_flags)
  if(ARG_COLD)
    target_compile_options(brick_${name} PRIVATE ${brick_cold_options})
  endif()
endfunction()

# The `brick` command, left at the top of the build folder.
function(brick_command)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/brick/cli/*.cc)
  add_executable(brick ${sources})
  target_link_libraries(brick PRIVATE brick_pipeline CLI11::CLI11 nlohmann_json::nlohmann_json
                        tomlplusplus::tomlplusplus brick_flags)
  target_compile_options(brick PRIVATE ${brick_cold_options})
  # CLI11 alone takes four seconds a file, even where nothing of it is used.
  set_target_properties(brick PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 5)
endfunction()

# A module's tests link that module alone (and what it publicly uses).
function(brick_test name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*_test.cc)
  if(NOT sources)
    return()
  endif()
  add_executable(${name}_test ${sources})
  target_link_libraries(${name}_test PRIVATE brick_${name} GTest::gtest_main nlohmann_json::nlohmann_json brick_flags)
  target_include_directories(${name}_test PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_options(${name}_test PRIVATE ${brick_cold_options})
  target_compile_definitions(${name}_test PRIVATE BRICK_TEST_SOURCE_DIR="${PROJECT_SOURCE_DIR}/tests")
  add_test(NAME ${name} COMMAND ${name}_test)
  # Idle OpenMP threads sleep soon, so that tests do not crawl beside other work (cli/main.cc does the same).
  set_tests_properties(${name} PROPERTIES ENVIRONMENT GOMP_SPINCOUNT=1000)
endfunction()
