# brick_embed(module file...)
# Compiles each file's bytes into the module as `extern const std::string_view kName` of brick::<module>::asset, declared in
# src/brick/<module>/asset.h: page.css becomes kPageCss, chart.min.js kChartMinJs.
if(NOT CMAKE_SCRIPT_MODE_FILE)
  set(BRICK_EMBED_SCRIPT ${CMAKE_CURRENT_LIST_FILE})

  function(brick_embed module)
    foreach(file ${ARGN})
      cmake_path(ABSOLUTE_PATH file BASE_DIRECTORY ${PROJECT_SOURCE_DIR})
      cmake_path(GET file FILENAME filename)
      string(REGEX MATCHALL "[A-Za-z0-9]+" words "${filename}")
      set(name k)
      foreach(word ${words})
        string(SUBSTRING ${word} 0 1 first)
        string(SUBSTRING ${word} 1 -1 rest)
        string(TOUPPER ${first} first)
        string(APPEND name ${first}${rest})
      endforeach()
      set(source ${PROJECT_BINARY_DIR}/asset/${module}/${filename}.cc)
      add_custom_command(
        OUTPUT ${source}
        COMMAND ${CMAKE_COMMAND} -DMODULE=${module} -DNAME=${name} -DINPUT=${file} -DOUTPUT=${source} -P ${BRICK_EMBED_SCRIPT}
        DEPENDS ${file} ${BRICK_EMBED_SCRIPT}
        COMMENT "Embedding ${filename}"
        VERBATIM)
      target_sources(brick_${module} PRIVATE ${source})
    endforeach()
  endfunction()
  return()
endif()

# As a script: one string literal with every byte escaped, in lines of 32. The length is given because a file may hold zeros.
file(READ ${INPUT} hex HEX)
file(SIZE ${INPUT} size)
string(REGEX REPLACE "(..)" "\\\\x\\1" escaped "${hex}")
string(REPEAT "...." 32 line)
string(REGEX REPLACE "(${line})" "\\1\"\n    \"" escaped "${escaped}")
file(WRITE ${OUTPUT}
     "#include \"brick/${MODULE}/asset.h\"\n\n"
     "const std::string_view brick::${MODULE}::asset::${NAME}(\n    \"${escaped}\",\n    ${size});\n")
